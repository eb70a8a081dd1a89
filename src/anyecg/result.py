"""Result: what analyze() found, ready for JSON, for the report, or to be written as annotations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np

from anyecg.overview import Overview, rounded
from anyecg.record import Annotation, Record
from anyecg.tokens import Tokens

BEAT_CLASSES = ("N", "S", "V", "F", "Q")
"""ANSI/AAMI EC57; each letter is also an MIT-BIH symbol of that class."""

DISCLAIMER = "Research software. Not a medical device: not for diagnosis or treatment."


@dataclass(frozen=True)
class LeadQuality:
    """How far one lead can be trusted.

    Parameters
    ----------
    score : float
        0 (no ECG in it) to 1 (nothing to object to).
    problems : tuple of str
        Named problems: ``"flat" "saturated" "lead off" "noise" "wander" "mains" "gaps" "too short"
        "implausible amplitude"``.
    """

    score: float
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quality:
    """Quality of a record: usable if at least one lead is; one `LeadQuality` a lead."""

    usable: bool
    leads: dict[str, LeadQuality]


@dataclass(frozen=True, eq=False)
class Rhythm:
    """R peaks and what follows from them.

    Parameters
    ----------
    r_peaks_s : ndarray of float64, shape (n_beats,)
        Seconds from the first sample of the record.
    hr_bpm : float or None
        Median heart rate; None with fewer than two beats.
    rr_mean_ms, sdnn_ms, rmssd_ms : float or None
        Over plausible RR intervals; None where there are too few.
    lead : str or None
        The lead the peaks were found in.
    """

    r_peaks_s: np.ndarray
    hr_bpm: float | None = None
    rr_mean_ms: float | None = None
    sdnn_ms: float | None = None
    rmssd_ms: float | None = None
    lead: str | None = None


@dataclass(frozen=True, eq=False)
class Beats(Sequence[Annotation]):
    """Beats and their classes: a sequence of annotations, each made when it is asked for. A day has 100,000.

    Parameters
    ----------
    at_s : ndarray of float64, shape (n_beats,)
        Seconds from the first sample of the record, ascending.
    classes : ndarray of uint8, shape (n_beats,)
        Numbers in `BEAT_CLASSES`.
    scores : ndarray of float32, shape (n_beats,)
        Probability of the class.
    """

    at_s: np.ndarray = field(default_factory=lambda: np.empty(0))
    classes: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.uint8))
    scores: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.float32))

    @property
    def codes(self) -> np.ndarray:
        """The letter of each beat's class, (n_beats,)."""
        return np.array(BEAT_CLASSES)[self.classes]

    def counts(self) -> dict[str, int]:
        """Return how many beats each class has."""
        return dict(zip(BEAT_CLASSES, np.bincount(self.classes, minlength=len(BEAT_CLASSES)).tolist(), strict=True))

    def within(self, start_s: float, end_s: float) -> "Beats":
        """Return those of a stretch, in seconds from its start."""
        inside = slice(*np.searchsorted(self.at_s, [start_s, end_s]))
        return Beats(self.at_s[inside] - start_s, self.classes[inside], self.scores[inside])

    def __len__(self) -> int:
        return len(self.at_s)

    @overload
    def __getitem__(self, which: int) -> Annotation: ...
    @overload
    def __getitem__(self, which: slice) -> "Beats": ...
    def __getitem__(self, which: int | slice) -> "Annotation | Beats":
        if isinstance(which, slice):
            return Beats(self.at_s[which], self.classes[which], self.scores[which])
        return _beat(float(self.at_s[which]), int(self.classes[which]), float(self.scores[which]))

    def __iter__(self) -> Iterator[Annotation]:
        return map(_beat, self.at_s.tolist(), self.classes.tolist(), self.scores.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Beats) and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in ("at_s", "classes", "scores")
        )


def _beat(at_s: float, number: int, score: float) -> Annotation:
    return Annotation(at_s, at_s, "beat", BEAT_CLASSES[number], score=score)


@dataclass(frozen=True)
class Finding(Annotation):
    """An annotation a head made: what it means, and whether the score suffices.

    Parameters
    ----------
    snomed : str or None
        SNOMED CT code.
    name : str
        In words.
    threshold : float or None
        Scores from here on are present. None where labels exclude each other: the most probable one is present.
    present : bool or None
        None: not assessable, the quality forbids it.
    leads : tuple of str
        Leads it was judged from.
    source : str
        The head, or the rule, that said so.
    """

    snomed: str | None = None
    name: str = ""
    threshold: float | None = None
    present: bool | None = None
    leads: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class Anomaly:
    """How far a record lies from normal training records.

    Parameters
    ----------
    score : float
        Grows with abnormality: 0 is the median of normal records, 1 their 84th percentile.
    percentile : float
        Share of normal held-out training-side records that score lower, 0 to 100.
    segments : tuple of Annotation
        The stretches that stand out, kind ``"anomaly"``.
    """

    score: float
    percentile: float
    segments: tuple[Annotation, ...] = ()


@dataclass(frozen=True, eq=False)
class Result:
    """Everything `anyecg.analyze` found in one record.

    Parameters
    ----------
    record : Record
        As read from the source, in mV; of a long recording read piece by piece no sample is kept.
    prepared : Record
        At the model's rate and band: what the model saw.
    quality : Quality
    rhythm : Rhythm
    tokens : Tokens
    decoded : Record
        The codes decoded again, mV, on the time axis of ``prepared``; NaN where nothing was recorded.
    surprise : ndarray of float32, shape (n_leads, n_fragments)
        Mean negative log-likelihood, in bits, of a fragment's codes under the masked model that does not see them;
        NaN where nothing was recorded; after ten minutes it is known for the most unusual window of each minute.
    embedding : ndarray of float32, shape (width,)
        Pooled embedding of the record.
    anomaly : Anomaly or None
        None if quality forbids a score.
    findings : tuple of Finding
        What the heads of the checkpoint found: every label of a record, then episodes.
    beats : Beats
        One annotation a beat: kind ``"beat"``, code its class (N S V F Q of ANSI/AAMI EC57), score its probability;
        empty if the checkpoint cannot tell.
    overview : Overview or None
        Hour by hour, minute by minute; the strips worth a look first.
    duration_s : float
        Length of the recording, also where its signal is not kept.
    excerpts : tuple of Result
        Of a long recording whose signal is not kept, each a short recording of its own: the strips worth a look.
    restored_leads : tuple of str
    warnings : tuple of str
    model : dict
        ``name, version, sha256, trained_on``.
    anyecg_version : str
    """

    record: Record
    prepared: Record
    quality: Quality
    rhythm: Rhythm
    tokens: Tokens
    decoded: Record
    surprise: np.ndarray
    embedding: np.ndarray
    anomaly: Anomaly | None
    model: dict[str, Any]
    anyecg_version: str
    findings: tuple[Finding, ...] = ()
    beats: Beats = field(default_factory=Beats)
    overview: Overview | None = None
    duration_s: float = 0.0
    excerpts: tuple["Result", ...] = ()
    restored_leads: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.duration_s:
            object.__setattr__(self, "duration_s", self.record.duration_s)

    def to_dict(self) -> dict[str, Any]:
        """Return the structure that ``anyecg analyze --json`` prints: plain, JSON-ready Python."""
        record, grid = self.record, self.tokens.grid
        return {
            "record": {
                "id": record.id,
                "format": record.format,
                "fs_hz": record.fs,
                "leads": list(record.leads),
                "start_s": round(record.start_s, 4),
                "duration_s": round(self.duration_s, 4),
                "age": record.age,
                "sex": record.sex,
                "start_time": record.start_time.isoformat() if record.start_time else None,
            },
            "quality": {
                "usable": self.quality.usable,
                "leads": {
                    name: {"score": round(lead.score, 3), "problems": list(lead.problems)}
                    for name, lead in self.quality.leads.items()
                },
            },
            "rhythm": {
                "hr_bpm": rounded(self.rhythm.hr_bpm, 1),
                "n_beats": len(self.rhythm.r_peaks_s),
                "beats": self.beats.counts() if self.beats else None,
                "rr_ms": {
                    "mean": rounded(self.rhythm.rr_mean_ms, 1),
                    "sdnn": rounded(self.rhythm.sdnn_ms, 1),
                    "rmssd": rounded(self.rhythm.rmssd_ms, 1),
                },
            },
            "findings": [_plain(finding) for finding in self.findings],
            "long": self.overview.to_dict() if self.overview else None,
            "anomaly": {
                "score": rounded(self.anomaly.score, 4) if self.anomaly else None,
                "percentile": rounded(self.anomaly.percentile, 1) if self.anomaly else None,
                "segments": [
                    {"start_s": a.start_s, "end_s": a.end_s, "lead": a.lead, "score": rounded(a.score, 3)}
                    for a in (self.anomaly.segments if self.anomaly else ())
                ],
            },
            "tokens": {
                "n_leads": len(self.tokens.leads),
                "n_fragments": int(self.tokens.codes.shape[1]),
                "n_levels": self.tokens.n_levels,
                "fragment_s": grid.fragment_s,
                "codebook_size": self.tokens.codebook_size,
            },
            "restored_leads": list(self.restored_leads),
            "warnings": list(self.warnings),
            "model": dict(self.model),
            "anyecg_version": self.anyecg_version,
            "disclaimer": DISCLAIMER,
        }


def _plain(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "snomed": finding.snomed,
        "name": finding.name,
        "kind": finding.kind,
        "score": rounded(finding.score, 4),
        "threshold": rounded(finding.threshold, 4),
        "present": finding.present,
        "start_s": round(finding.start_s, 3),
        "end_s": round(finding.end_s, 3),
        "lead": finding.lead,
        "leads": list(finding.leads),
        "source": finding.source,
    }
