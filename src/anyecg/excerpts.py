"""The strips of a long recording that are worth a look, each as a short Result: what the report draws."""

from collections.abc import Callable
from dataclasses import replace
from math import ceil, floor

from anyecg.engine import Model
from anyecg.errors import AnyECGError
from anyecg.overview import Strip
from anyecg.pieces import CONTEXT_S
from anyecg.quality import assess
from anyecg.record import Annotation, Record
from anyecg.result import Anomaly, Result
from anyecg.tasks.episodes import RULES, WAVEFORM
from anyecg.tasks.rhythm import HEAD as RHYTHM_HEAD

EPISODES = (RULES, WAVEFORM, RHYTHM_HEAD)
"""Where findings that have a time come from; others are about the whole recording."""

THE_START = Strip(0.0, 30.0, ())
"""Is shown where no strip asks for a look."""


def excerpts(result: Result, model: Model, read: Callable[[float, float], Record]) -> tuple[Result, ...]:
    """Read the strips of a result's overview again.

    Parameters
    ----------
    result : Result
        Of a recording whose signal was not kept.
    model : Model
    read : callable
        Takes start and end in seconds and returns that part of the recording.

    Returns
    -------
    tuple of Result
        One a strip, in the same order, on whole blocks of the tokenizer; a strip that cannot be read again is left out.
    """
    strips = result.overview.strips if result.overview else ()
    found = []
    for strip in strips or (THE_START,):
        try:
            found.append(_excerpt(result, model, strip, read))
        except AnyECGError:
            continue
    return tuple(found)


def _excerpt(result: Result, model: Model, strip: Strip, read: Callable[[float, float], Record]) -> Result:
    tokens, grid = result.tokens, result.tokens.grid
    block_s = grid.block_samples / grid.fs_hz
    first = floor(strip.start_s / block_s)
    last = min(ceil(strip.end_s / block_s), len(tokens.scale_mv))
    start_s, end_s = first * block_s, min(last * block_s, tokens.n_samples / grid.fs_hz)
    n_samples = round((end_s - start_s) * grid.fs_hz)

    raw = read(max(start_s - CONTEXT_S, 0.0), end_s + CONTEXT_S)
    before_s = min(start_s, CONTEXT_S)
    prepared = model.prepare(raw)
    own = round(before_s * raw.fs)
    raw = raw.with_(signal=raw.signal[:, own : own + round((end_s - start_s) * raw.fs)], start_s=raw.start_s + before_s)
    own = round(before_s * grid.fs_hz)
    prepared = prepared.with_(signal=prepared.signal[:, own : own + n_samples])

    fragments = slice(
        first * grid.block_fragments, first * grid.block_fragments + ceil(n_samples / grid.fragment_samples)
    )
    part = replace(
        tokens,
        codes=tokens.codes[:, fragments],
        valid=tokens.valid[:, fragments],
        scale_mv=tokens.scale_mv[first:last],
        n_samples=prepared.n_samples,
    )
    peaks_s = result.rhythm.r_peaks_s
    inside = (peaks_s >= start_s) & (peaks_s < end_s)

    def moved(a: Annotation) -> Annotation:
        return replace(a, start_s=max(a.start_s - start_s, 0.0), end_s=min(a.end_s, end_s) - start_s)

    def here(a: Annotation) -> bool:
        return a.start_s < end_s and a.end_s >= start_s

    anomaly = result.anomaly
    return replace(
        result,
        record=raw,
        prepared=prepared,
        quality=assess(raw, prepared),
        rhythm=replace(result.rhythm, r_peaks_s=peaks_s[inside] - start_s),
        tokens=part,
        decoded=model.decode(part),
        surprise=result.surprise[:, fragments],
        anomaly=anomaly
        and Anomaly(anomaly.score, anomaly.percentile, tuple(moved(a) for a in anomaly.segments if here(a))),
        findings=tuple(moved(f) for f in result.findings if f.source in EPISODES and here(f)),  # type: ignore[misc]
        beats=result.beats.within(start_s, end_s),
        overview=None,
        duration_s=end_s - start_s,
        excerpts=(),
        warnings=(),
    )
