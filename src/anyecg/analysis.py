"""The whole way for one record: source, preparation, quality, beats, codes, embeddings, surprise, anomaly, Result."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from anyecg import __version__
from anyecg.beats import find_beats
from anyecg.engine import Model, load
from anyecg.quality import assess
from anyecg.readers import read
from anyecg.record import Annotation, Record
from anyecg.result import Finding, Quality, Result, Rhythm
from anyecg.tasks.anomaly import find_anomaly, load_reference
from anyecg.tasks.arrhythmia import find_labels, record_head_names
from anyecg.tasks.beat_classes import HEAD as BEATS_HEAD
from anyecg.tasks.beat_classes import classify_beats
from anyecg.tasks.episodes import as_finding
from anyecg.tasks.long import summarize, unusable_stretches, window_surprise
from anyecg.tasks.rhythm import HEAD as RHYTHM_HEAD
from anyecg.tasks.rhythm import find_episodes


def analyze(record: Record | str | Path, model: Model | str | Path = "nano") -> Result:
    """Analyse one record.

    Parameters
    ----------
    record : Record, str or Path
        A record as `anyecg.read` returned it, or the path of a file.
    model : Model, str or Path
        A loaded model, or what `anyecg.load` takes.

    Returns
    -------
    Result
        ``result.to_dict()`` is its JSON; `anyecg.write_report` draws it.

    Raises
    ------
    ReadError, SignalError, CheckpointError

    Examples
    --------
    >>> import anyecg
    >>> result = anyecg.analyze("ecg.dcm")  # doctest: +SKIP
    """
    if not isinstance(model, Model):
        model = load(model)
    names = (BEATS_HEAD, RHYTHM_HEAD, *record_head_names(model.checkpoint.folder))
    model.open_graphs(names)  # they open while the file is read
    if not isinstance(record, Record):
        record = read(record)

    prepared = model.prepare(record)
    quality = assess(record, prepared)
    with ThreadPoolExecutor(1) as beside:  # the graphs need no Python while they run: beats are found meanwhile
        found = beside.submit(find_course, model, record, prepared, quality)
        tokens = model.tokenize(prepared)
        decoded = model.decode(tokens)
        embedding = model.embed(tokens)
        surprise = model.surprise(tokens)
        course = found.result()

    anomaly, reference = None, load_reference(model.checkpoint.folder, record.n_leads)
    if quality.usable:
        judged = [name for name, lead in quality.leads.items() if lead.score > 0]
        anomaly = find_anomaly(embedding, surprise, judged, reference, prepared, course.rhythm)

    labels = find_labels(model, tokens, course.rhythm, quality, embedding)
    overview = summarize(
        course.rhythm.r_peaks_s,
        prepared.duration_s,
        classes=course.classes,
        episodes=course.episodes,
        unusable_s=course.unusable_s,
        anomalies=anomaly.segments if anomaly else (),
        surprise_bits=window_surprise(surprise, model.checkpoint.grid.fragment_s),
    )
    return Result(
        record=record,
        prepared=prepared,
        quality=quality,
        rhythm=course.rhythm,
        tokens=tokens,
        decoded=decoded,
        surprise=surprise,
        embedding=embedding.pooled,
        anomaly=anomaly,
        findings=(*labels, *course.findings()),
        beats=course.beats,
        overview=overview,
        model=model.describe(),
        anyecg_version=__version__,
        warnings=(*prepared.warnings, *_cautions(record, model, quality.usable)),
    )


@dataclass(frozen=True, eq=False)
class Course:
    """Beats, their classes, and the rhythm episodes they make; stretches without usable signal, (n, 2) in seconds."""

    rhythm: Rhythm
    beats: tuple[Annotation, ...]
    episodes: tuple[Annotation, ...]
    unusable_s: np.ndarray
    threshold: float | None

    @property
    def classes(self) -> np.ndarray | None:
        """Return one letter a beat; None if beats have no classes."""
        return np.array([beat.code for beat in self.beats]) if self.beats else None

    def findings(self) -> tuple[Finding, ...]:
        """Return the episodes as findings; those with a score come from a head, with its threshold."""
        leads = (self.rhythm.lead,) if self.rhythm.lead else ()
        return tuple(as_finding(e, leads, None if e.score is None else self.threshold) for e in self.episodes)


def find_course(model: Model, record: Record, prepared: Record, quality: Quality) -> Course:
    """Find the beats of a record, their classes and rhythm episodes."""
    rhythm = find_beats(prepared, quality)
    beats = tuple(classify_beats(prepared, rhythm, model)) if quality.usable else ()
    unusable_s = unusable_stretches(record, prepared, whole=quality)
    head = model.head(RHYTHM_HEAD)
    course = Course(rhythm, beats, (), unusable_s, head.labels[0].threshold if head else None)
    episodes = find_episodes(rhythm.r_peaks_s, course.classes, head=head, unusable_s=unusable_s)
    return replace(course, episodes=episodes)


def _cautions(record: Record, model: Model, usable: bool) -> list[str]:
    """Say what the model had to do without."""
    cautions = []
    unknown = [name for name in record.leads if name not in model.checkpoint.lead_names]
    if unknown:
        cautions.append(f"leads not in the training data, taken as unknown leads: {', '.join(unknown)}")
    if not record.gain_known:
        cautions.append("the gain is unknown: shapes and times hold, millivolts do not")
    block_s = model.checkpoint.grid.block_samples / model.checkpoint.grid.fs_hz
    if record.duration_s < block_s:
        cautions.append(f"{record.duration_s:.1f} s of signal; the model was trained on {block_s:g} s and more")
    if not usable:
        cautions.append("no lead is of usable quality: no anomaly score")
    return cautions
