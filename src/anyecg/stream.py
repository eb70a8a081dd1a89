"""A recording of any length -> Result, piece by piece, while its samples arrive.

Every recording goes this way: ten seconds are one piece, a day is 1,440. What is kept of a piece is small (beats,
codes, levels), so memory hardly grows with the length; what a piece says does not depend on how its samples came (see
`anyecg.pieces`). What needs more than a piece waits for it: the classes of beats for the half hour around them, rhythm
episodes and the overview for the whole.
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from threading import Thread

import numpy as np

from anyecg import __version__
from anyecg.beats import Detected, detect_beats, import_detector, rhythm_of, within
from anyecg.engine import Model, load
from anyecg.errors import SignalError
from anyecg.pieces import CONTEXT_S, PIECE_S, Cutter, Piece
from anyecg.quality import assess, joint_quality, problem_bits
from anyecg.record import Annotation, Record
from anyecg.result import Beats, Quality, Result
from anyecg.seen import Looked, Seen, Waiting, end_to_end, join, look
from anyecg.signals import find_leads_off, leads_off_words
from anyecg.tasks.anomaly import anomaly_of, load_reference
from anyecg.tasks.arrhythmia import labels_of, record_head_names, record_heads
from anyecg.tasks.beat_classes import FEWEST_BEATS, beat_inputs, classes_of, rr_features
from anyecg.tasks.beat_classes import HEAD as BEATS_HEAD
from anyecg.tasks.episodes import as_finding, merged
from anyecg.tasks.long import summarize, window_surprise
from anyecg.tasks.rhythm import HEAD as RHYTHM_HEAD
from anyecg.tasks.rhythm import find_episodes
from anyecg.tokens import Tokens

LEAST_FS_HZ = 100.0
"""The lowest rate at which a diagnosis was measured (row ``robustness_probe`` of the benchmarks)."""

BEAT_PIECES = 10
"""Pieces whose beats are found together. A detector that begins anew each minute learns anew each minute, at times
wrongly: on the training records of MIT-BIH it has 1,213 false beats, with ten minutes 967, with whole records 834."""

SEGMENT_PIECES = 30
"""Pieces whose beats are compared with one dominant beat: the ECG changes over a day. The beats of a segment get their
classes when the next one is complete: what is usual about them is told by a quarter of an hour to both sides."""

SEGMENT_MARGIN_S = 1.0
REACH_BEATS = 1000
"""Beats to either side whose intervals a beat is compared with (see `anyecg.tasks.beat_classes.RR_WINDOWS`)."""


class Stream:
    """One recording, analysed while its samples arrive.

    Parameters
    ----------
    like : Record
        Rate, leads, age, sex and all else but the samples; its signal is not looked at.
    model : Model, str or Path
    keep_signal : bool
        Keep the prepared signal, and decode the codes, so that the Result holds both. Memory then grows with length.

    Examples
    --------
    >>> import numpy as np
    >>> from anyecg import Record
    >>> stream = Stream(Record(np.empty((1, 0)), 250.0, ("II",)))  # doctest: +SKIP
    >>> stream.feed(samples_mv)  # doctest: +SKIP
    >>> stream.result().rhythm.hr_bpm  # doctest: +SKIP
    """

    def __init__(self, like: Record, model: Model | str | Path = "nano", *, keep_signal: bool = False) -> None:
        self.model = model if isinstance(model, Model) else load(model)
        open_all(self.model)
        self._like = like.with_(signal=like.signal[:, :0])
        self._reference = load_reference(self.model.checkpoint.folder, like.n_leads)
        self._cutter = Cutter(like, self.model.checkpoint.preparation)
        self._segments: list[Seen] = []  # whose beats have their classes
        self._recent: list[Future[Seen]] = []
        self._recent_pieces: list[Piece] = []
        self._waiting: list[Waiting] = []
        self._in_flight: deque[Future[Looked]] = deque()
        self._classes: list[np.ndarray] = []
        self._class_scores: list[np.ndarray] = []
        self._prepared: list[np.ndarray] | None = [] if keep_signal else None
        self._pool = ThreadPoolExecutor(self.model.threads, thread_name_prefix="anyecg-pieces")
        self._beat_lead: str | None = None
        self._last_peak_s = -np.inf

    @property
    def duration_s(self) -> float:
        """Seconds of the recording that have arrived."""
        return self._cutter.duration_s

    @property
    def analysed_s(self) -> float:
        """Seconds whose beats and codes are found for good; `result` adds what came later."""
        return (self._cutter.number - len(self._waiting)) * PIECE_S

    def feed(self, samples: np.ndarray) -> None:
        """Take the next samples, (n_leads, n) in mV, as many as there are; NaN = not recorded.

        Raises
        ------
        SignalError
            Not one row a lead.
        """
        for piece in self._cutter.feed(samples):
            self._begin(piece)
            if self._prepared is not None:
                self._prepared.append(piece.prepared.signal)
            if len(self._waiting) == BEAT_PIECES:
                self._recent += self._with_beats(self._waiting, at_end=False)
                self._recent_pieces += [_with_margin(w.piece, SEGMENT_MARGIN_S) for w in self._waiting]
                self._waiting = []
            if len(self._recent) == 2 * SEGMENT_PIECES:
                self._close_segment()

    def result(self) -> Result:
        """Return what was found so far, as if the recording ended here; more may be fed after it.

        Raises
        ------
        SignalError
            There is too little signal, or nothing was recorded.
        """
        rest = self._cutter.rest()
        before = self._beat_lead, self._last_peak_s
        self._begin(rest)
        waiting = self._waiting
        self._waiting = waiting[:-1]
        try:
            found = self._with_beats(waiting, at_end=True)
        finally:
            self._beat_lead, self._last_peak_s = before
        recent = [future.result() for future in (*self._recent, *found)]
        pieces = [*self._recent_pieces, *(w.piece for w in waiting)]
        classes, scores = self._all_classes(recent, pieces)
        return self._result(end_to_end([*self._segments, *recent]), classes, scores, rest)

    # -- going on where another stream was stopped ---------------------------------------------------------------

    @property
    def needed_from(self) -> int:
        """The number of the sample to feed next; not that which came last, in a stream that was `restore`d."""
        return self._cutter.n_samples

    def state(self) -> dict[str, np.ndarray] | None:
        """Return what is found for good, by names; None as long as that is nothing."""
        if not self._segments:
            return None
        self._segments = [end_to_end(self._segments)]
        self._classes, self._class_scores = [np.concatenate(self._classes)], [np.concatenate(self._class_scores)]
        seen = {f.name: getattr(self._segments[0], f.name) for f in fields(Seen)}
        return {**seen, "classes": self._classes[0], "class_scores": self._class_scores[0]}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on where another stream, whose `state` this is, was stopped; feed samples from `needed_from` on."""
        seen = Seen(**{f.name: state[f.name] for f in fields(Seen)})
        self._segments, self._classes, self._class_scores = [seen], [state["classes"]], [state["class_scores"]]
        self._cutter = Cutter(self._like, self.model.checkpoint.preparation, first_piece=len(seen.end_s))
        known = seen.beat_lead[seen.beat_lead >= 0]
        self._beat_lead = self._like.leads[int(known[-1])] if len(known) else None
        self._last_peak_s = float(seen.r_peaks_s[-1]) if len(seen.r_peaks_s) else -np.inf

    # -- a piece, and some together --------------------------------------------------------------------------------

    def _begin(self, piece: Piece) -> None:
        """Judge a piece's quality while the graphs, which need no Python while they run, look at it."""
        looked = self._pool.submit(look, self.model, piece, self._reference)
        raw = piece.raw
        off_s = np.zeros(raw.n_leads) if raw.source_fs is not None else find_leads_off(raw).sum(axis=1) / raw.fs
        quality = assess(raw, piece.prepared)
        self._waiting.append(Waiting(_with_margin(piece, CONTEXT_S), quality, off_s, looked))
        self._in_flight.append(looked)
        while len(self._in_flight) > self.model.threads + 1:  # bounds the memory, and what is lost when all is stopped
            self._in_flight.popleft().result()

    def _with_beats(self, waiting: list[Waiting], *, at_end: bool) -> "list[Future[Seen]]":
        """Find the beats of consecutive pieces together, then let each be joined with what its networks said."""
        pieces = [w.piece for w in waiting]
        whole, begins_s = _laid_end_to_end(pieces)
        quality = waiting[0].quality if len(waiting) == 1 else _joint([w.quality for w in waiting])
        found = detect_beats(whole, quality, self._beat_lead)
        found = Detected(found.r_peaks_s + begins_s, found.gaps_s + begins_s, found.lead)
        start_s = pieces[0].start_s if pieces[0].number else -np.inf
        own = within(found, start_s, np.inf if at_end else pieces[-1].end_s, self._last_peak_s)
        self._beat_lead = own.lead or self._beat_lead
        self._last_peak_s = float(own.r_peaks_s[-1]) if len(own.r_peaks_s) else self._last_peak_s
        of_piece = np.split(own.r_peaks_s, np.searchsorted(own.r_peaks_s, [p.start_s for p in pieces[1:]]))
        return [
            self._pool.submit(join, self.model, w, _part(own, peaks_s, w.piece), self._reference)
            for w, peaks_s in zip(waiting, of_piece, strict=True)
        ]

    def _close_segment(self) -> None:
        """Tell the classes of the beats of all but the last half hour."""
        recent = [future.result() for future in self._recent]
        classes, scores = self._classes_of(recent, self._recent_pieces[:SEGMENT_PIECES])
        self._classes.append(classes)
        self._class_scores.append(scores)
        self._segments.append(end_to_end(recent[:SEGMENT_PIECES]))
        del self._recent[:SEGMENT_PIECES], self._recent_pieces[:SEGMENT_PIECES]

    # -- the whole -------------------------------------------------------------------------------------------

    def _all_classes(self, recent: list[Seen], pieces: list[Piece]) -> tuple[np.ndarray, np.ndarray]:
        """Return the class and its probability of every beat; a short last segment goes with the one before it."""
        n_first = SEGMENT_PIECES if len(pieces) >= 1.5 * SEGMENT_PIECES else len(pieces)
        found = [self._classes_of(recent, part) for part in (pieces[:n_first], pieces[n_first:]) if part]
        classes = np.concatenate([*self._classes, *(c for c, _ in found)])
        return classes, np.concatenate([*self._class_scores, *(s for _, s in found)])

    def _classes_of(self, recent: list[Seen], segment: list[Piece]) -> tuple[np.ndarray, np.ndarray]:
        """Return the class (its number in `BEAT_CLASSES`) and its probability of each beat of consecutive pieces."""
        peaks_s = np.concatenate([seen.r_peaks_s for seen in (*self._segments, *recent)])
        until = np.cumsum(np.concatenate([[0], *(seen.n_beats for seen in (*self._segments, *recent))]))
        first, last = int(until[segment[0].number]), int(until[segment[-1].number + 1])
        head = self.model.head(BEATS_HEAD)
        if head is None or first == last:
            return np.zeros(last - first, dtype=np.uint8), np.zeros(last - first, dtype=np.float32)
        reach = slice(max(first - REACH_BEATS, 0), last + REACH_BEATS)
        rr = rr_features(peaks_s[reach])[first - reach.start : last - reach.start]
        whole, begins_s = _laid_end_to_end(segment)
        return classes_of(head, beat_inputs(whole, peaks_s[first:last] - begins_s, rr))

    def _result(self, seen: Seen, classes: np.ndarray, class_scores: np.ndarray, rest: Piece) -> Result:
        like, model = self._like, self.model
        duration_s = self.duration_s
        quality = joint_quality(like.leads, seen.scores, seen.problems, seen.usable)
        rhythm = rhythm_of(Detected(seen.r_peaks_s, seen.gaps_s, _most_common(seen.beat_lead, like.leads)))
        tokens = self._tokens(seen)
        told = quality.usable and model.head(BEATS_HEAD) is not None and len(rhythm.r_peaks_s) >= FEWEST_BEATS
        beats = Beats(rhythm.r_peaks_s, classes, class_scores) if told else Beats()
        letters = beats.codes if beats else None
        head = model.head(RHYTHM_HEAD)
        unusable_s = merged(seen.unusable_s)
        episodes = find_episodes(rhythm.r_peaks_s, letters, head=head, unusable_s=unusable_s, vf_scores=seen.vf)
        anomaly = None
        if quality.usable and len(seen.windows):
            weighted = np.repeat(seen.windows[:, :2], seen.windows[:, 2].astype(int), axis=0)
            anomaly = anomaly_of(weighted, _segments(seen.segments, like.leads))
        threshold = head.labels[0].threshold if head else None
        leads = (rhythm.lead,) if rhythm.lead else ()
        surprise = seen.surprise.T
        minutes = np.minimum(np.arange(max(1, int(np.ceil(duration_s / PIECE_S)))), len(seen.scores) - 1)
        prepared_s = tokens.n_samples / tokens.grid.fs_hz
        overview = summarize(
            rhythm.r_peaks_s,
            prepared_s,
            classes=letters,
            episodes=episodes,
            unusable_s=unusable_s,
            anomalies=anomaly.segments if anomaly else (),
            surprise_bits=window_surprise(surprise, tokens.grid.fragment_s),
            leads=like.leads,
            st_mv=seen.st_mv[minutes].T,
            quality=seen.scores[minutes].T.astype(np.float32),
        )
        logits = _by_head(model, seen.logits, like.n_leads)
        prepared = rest.prepared.with_(signal=self._all_prepared(rest), annotations=like.annotations)
        return Result(
            record=like,
            prepared=prepared,
            quality=quality,
            rhythm=rhythm,
            tokens=tokens,
            decoded=model.decode(tokens) if self._prepared is not None else prepared.with_(format="decoded"),
            surprise=surprise,
            embedding=(seen.pooled.sum(axis=0) / max(int(seen.n_pooled.sum()), 1)).astype(np.float32),
            anomaly=anomaly,
            findings=(
                *labels_of(model, logits, quality, prepared_s),
                *(as_finding(e, leads, None if e.score is None else threshold) for e in episodes),
            ),
            beats=beats,
            overview=overview,
            duration_s=duration_s,
            model=model.describe(),
            anyecg_version=__version__,
            warnings=(
                *like.warnings,
                *leads_off_words(like.leads, seen.off_s.sum(axis=0)),
                *_cautions(like, duration_s, model, quality),
            ),
        )

    def _tokens(self, seen: Seen) -> Tokens:
        if not (seen.codes >= 0).any():
            raise SignalError(
                f"{self._like.id}: no {self.model.checkpoint.grid.fragment_s:g} s stretch is recorded, expected at "
                "least one. Check the source."
            )
        return Tokens(
            seen.codes.transpose(1, 0, 2),
            (seen.codes[..., 0] >= 0).T,
            seen.scale_mv,
            self.model.checkpoint.grid,
            self.model.checkpoint.config["model"]["tokenizer"]["codebook_size"],
            self._like.leads,
            int(seen.n_samples.sum()),
            record_id=self._like.id,
            gain_known=self._like.gain_known,
        )

    def _all_prepared(self, rest: Piece) -> np.ndarray:
        if self._prepared is None:
            return np.empty((self._like.n_leads, 0), dtype=np.float32)
        return np.concatenate([*self._prepared, rest.prepared.signal], axis=1)


def open_all(model: Model) -> None:
    """Begin to open every graph and head that an analysis needs, and to import the detector of beats beside them."""
    Thread(target=_import_ahead, name="anyecg-imports").start()
    model.open_graphs((BEATS_HEAD, RHYTHM_HEAD, *record_head_names(model)))


def _import_ahead() -> None:
    # Two threads may begin to import one library. Who then meets half of it imports it again when it is needed.
    with suppress(ImportError, AttributeError):
        import_detector()


def _part(found: Detected, peaks_s: np.ndarray, piece: Piece) -> Detected:
    """Return what was found in one piece, in seconds from its start."""
    gaps_s = np.clip(found.gaps_s, piece.start_s, piece.end_s) - piece.start_s
    return Detected(peaks_s - piece.start_s, gaps_s[gaps_s[:, 1] > gaps_s[:, 0]], found.lead)


def _laid_end_to_end(pieces: list[Piece]) -> tuple[Record, float]:
    """Return consecutive pieces as one prepared record, with what is kept before and behind, and when it begins."""
    first, last = pieces[0], pieces[-1]
    before, behind = first.around.signal[:, : first.first], last.around.signal[:, last.last :]
    signal = np.concatenate([before, *(piece.prepared.signal for piece in pieces), behind], axis=1)
    return first.around.with_(signal=signal), first.start_s - first.context_s


def _with_margin(piece: Piece, margin_s: float) -> Piece:
    """Return a piece with so much of its context, and nothing of the source."""
    margin = round(margin_s * piece.around.fs)
    first, last = max(piece.first - margin, 0), piece.last + margin
    around = piece.around.with_(signal=piece.around.signal[:, first:last].copy())
    raw = piece.raw.with_(signal=piece.raw.signal[:, :0].copy())
    return replace(piece, raw=raw, around=around, first=piece.first - first, last=piece.last - first)


def _joint(qualities: list[Quality]) -> Quality:
    """Join the quality of consecutive pieces."""
    leads = tuple(qualities[0].leads)
    scores = np.array([[q.leads[name].score for name in leads] for q in qualities])
    problems = np.array([[problem_bits(q.leads[name]) for name in leads] for q in qualities])
    return joint_quality(leads, scores, problems, np.array([q.usable for q in qualities]))


def _segments(found: np.ndarray, leads: tuple[str, ...]) -> tuple[Annotation, ...]:
    """Return the stretches that stand out; one that goes on in the next piece is one."""
    joined: list[Annotation] = []
    for start_s, end_s, row, score in found[np.lexsort((found[:, 0], found[:, 2]))].tolist():
        last = joined[-1] if joined else None
        if last is not None and last.lead == leads[int(row)] and abs(last.end_s - start_s) < 1e-6:
            before_s, after_s = last.end_s - last.start_s, end_s - start_s
            mean = ((last.score or 0.0) * before_s + score * after_s) / (before_s + after_s)
            joined[-1] = replace(last, end_s=end_s, score=mean)
        else:
            joined.append(Annotation(start_s, end_s, "anomaly", "unusual", leads[int(row)], score))
    return tuple(joined)


def _most_common(rows: np.ndarray, leads: tuple[str, ...]) -> str | None:
    known = rows[rows >= 0]
    return leads[int(np.bincount(known).argmax())] if len(known) else None


def _by_head(model: Model, logits: np.ndarray, n_leads: int) -> dict[str, np.ndarray]:
    """Take the labels of all record heads, which stand side by side, apart."""
    heads = record_heads(model, n_leads)
    edges = np.cumsum([len(head.labels) for head in heads])
    return {head.name: part for head, part in zip(heads, np.split(logits, edges[:-1], axis=1), strict=True)}


def _cautions(record: Record, duration_s: float, model: Model, quality: Quality) -> list[str]:
    """Say what the model had to do without."""
    cautions = []
    unknown = [name for name in record.leads if name not in model.checkpoint.lead_names]
    if unknown:
        cautions.append(f"leads not in the training data, taken as unknown leads: {', '.join(unknown)}")
    recorded_hz = record.source_fs or record.fs
    if recorded_hz < LEAST_FS_HZ:
        cautions.append(
            f"recorded at {recorded_hz:g} Hz: nothing above {recorded_hz / 2:g} Hz is in it, and no answer was "
            f"measured at less than {LEAST_FS_HZ:g} Hz"
        )
    if not record.gain_known:
        cautions.append("the gain is unknown: shapes and times hold, millivolts do not")
    block_s = model.checkpoint.grid.block_samples / model.checkpoint.grid.fs_hz
    if duration_s < block_s:
        cautions.append(f"{duration_s:.1f} s of signal; the model was trained on {block_s:g} s and more")
    if not quality.usable:
        cautions.append("no lead is of usable quality: no anomaly score")
    return cautions
