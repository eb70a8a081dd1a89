"""What looks recorded and is not, or not wholly: sentinels, lines that stand still, clipped peaks; and gaps."""

import numpy as np

from anyecg.readers.audits.levels import Levels, levels_of
from anyecg.readers.audits.pieces import pieces_of
from anyecg.record import Record, runs_of

MARKS = (-32768.0, -32767.0, 32767.0, 32768.0, -8388608.0, -8388607.0, 8388607.0, 8388608.0)
"""Counts that stand for "no sample" in 16 and 24 bits. Those of 32 bits are found by their distance alone."""

ISOLATED = 3.0
"""A mark lies this many times the span of everything else away from it: no QRS complex or artefact leaves such a void
behind, since it is sampled on its way."""

MARK_SAMPLES = 3
"""An isolated value must occur this often to be a mark, unless it is one of `MARKS`: a pacing spike is one or two."""

FIRST = 512
"""So many of the ten values a second settle nearly every lead: a minute."""

CLOSER = 16
"""Every so many samples are looked at where ten a second leave a mark possible."""

STANDSTILL_S = 1.0
"""A line of exactly one value for this long is no ECG: the amplifier's noise alone moves it. In asystole, too."""

STILL_VALUES = 8
"""Of ten a second (`Levels.thin`), so many equal ones in a row are worth a look at every sample."""

CLIPPED_RUN_S, CLIPPED_SAMPLES, CLIPPED_RUNS = 0.008, 4, 3
"""A clipped peak holds the extreme for 8 ms and four samples or more, and at least three peaks do. An R peak's own top
is shorter: it falls by 5 % of its height in 4 ms."""

CLIPPED_STEP = 0.02
"""Share of the lead's span by which the signal arrives at a clipped plateau in one sample; a T wave creeps up to its
top by steps of the converter."""

LONG_RUN_S = 0.1
"""A plateau at the extreme this long is clipped however slowly the signal arrived: the wander reached the rail."""

FINE_LEVELS = 256
"""With no more steps over its whole span (8 bits), a lead also rests on its lowest step between two beats."""

GAP_S = 0.2
"""Less than this in all is not worth a line."""


def without_marks(record: Record, levels: Levels | None = None) -> tuple[Record, list[str]]:
    """Return the record with missing-sample marks that were left as numbers as NaN, and what was found.

    A mark is an extreme value of a lead, repeated exactly, far from all others (`ISOLATED`); or a lead that stands
    still at its extreme, as far away, for `STANDSTILL_S` and longer, whatever the way there looks like.
    """
    signal = record.signal
    found: dict[str, int] = {}
    values: list[float] = []
    for row in _rows_that_may_have_marks(record, levels or levels_of(record)):
        name = record.leads[row]
        for _ in range(4):  # two marks of a file, one on either side, and once more each
            mark = _mark(signal[row], record.fs)
            if mark is None:
                break
            value, at = mark
            if signal is record.signal:
                signal = signal.copy()
            signal[row, at] = np.nan
            found[name] = found.get(name, 0) + int(at.sum())
            values.append(value)
    if not found:
        return record, []
    shown = ", ".join(f"{value:.6g}" for value in dict.fromkeys(values[:4]))
    return record.with_(signal=signal), [
        f"{sum(found.values())} samples of {shown} mV, far from all others, are taken as not recorded: {_some(found)}"
    ]


def _rows_that_may_have_marks(record: Record, levels: Levels) -> list[int]:
    """Return the rows for which `_mark` is worth asking: few, since all samples are compared there.

    Some samples show it: where these, without the extremes, already span a quarter of the whole, nothing is
    `ISOLATED`; and a second at an extreme leaves nine or ten values there.
    """
    low, high, thin = levels.low[:, None], levels.high[:, None], levels.thin
    moves = levels.low < levels.high
    at_extreme, n_still = (thin == low) | (thin == high), max(1.0, STANDSTILL_S * record.fs / levels.stride - 1)
    standing = np.zeros_like(moves)
    if np.count_nonzero(at_extreme) >= n_still:  # of all leads together: fast
        standing = (at_extreme.sum(axis=1) >= n_still) & moves
    first = thin[:, :FIRST]
    inner = np.where((first > low) & (first < high), first, np.float32(np.nan))
    span = np.fmax.reduce(inner, axis=1) - np.fmin.reduce(inner, axis=1)
    open_ = ~(span * (1 + ISOLATED) >= levels.high - levels.low) & moves
    return [
        row
        for row in np.flatnonzero(standing | open_).tolist()
        # Ten a second may miss every QRS complex.
        if standing[row]
        or all(_may_be_isolated(part, *low[row], *high[row]) for part in (thin[row], record.signal[row, ::CLOSER]))
    ]


def _may_be_isolated(thin: np.ndarray, low: np.float32, high: np.float32) -> bool:
    """Return whether some of a lead's samples leave it possible that an extreme is `ISOLATED`."""
    inner = thin[(thin > low) & (thin < high)]
    return not len(inner) or not (inner.max() - inner.min()) * (1 + ISOLATED) >= high - low


def _mark(row: np.ndarray, fs: float) -> tuple[float, np.ndarray] | None:
    """Return a value that is no voltage, and where it stands; None if there is none."""
    low, high = float(np.fmin.reduce(row)), float(np.fmax.reduce(row))
    if not low < high:
        return None
    at_low, at_high = row == np.float32(low), row == np.float32(high)
    inner = row[~(at_low | at_high)]  # both extremes may be marks: each is compared with what lies between
    inner_low, inner_high = float(np.fmin.reduce(inner, initial=np.inf)), float(np.fmax.reduce(inner, initial=-np.inf))
    for value, at in ((low, at_low), (high, at_high)):
        n_at = int(at.sum())
        void = inner_low - value if value == low else value - inner_high
        # Of two or three levels nobody can say which one is the heart.
        if inner_high > inner_low and void > ISOLATED * (inner_high - inner_low):
            if n_at >= MARK_SAMPLES or _is_known_mark(value, inner):
                return value, at
        elif n_at >= STANDSTILL_S * fs:
            standing = _standing(at, max(1, round(STANDSTILL_S * fs)))
            others = row[~standing & np.isfinite(row)]
            if standing.any() and len(others):
                lower, middle, upper = np.percentile(others, [2, 50, 98])
                if abs(value - middle) > ISOLATED * (upper - lower) > 0:
                    return value, standing
    return None


def _is_known_mark(value: float, others: np.ndarray) -> bool:
    """Return whether a value is one of `MARKS` times the lead's resolution, as the other values show it."""
    levels = np.unique(others[:100_000])
    levels = levels[np.isfinite(levels)].astype(np.float64)
    steps = np.diff(levels)
    steps = steps[steps > 1e-5 * np.abs(levels).max(initial=0)]
    if len(steps) == 0:
        return False
    step = float(steps.min())
    n_steps = round((levels[-1] - levels[0]) / step)
    step = (levels[-1] - levels[0]) / max(n_steps, 1)  # over the whole span the error of float32 is divided
    return bool(np.abs(value / step - np.asarray(MARKS)).min() < 0.6)


def _standing(at: np.ndarray, n_shortest: int) -> np.ndarray:
    """Return where a mask is True for ``n_shortest`` samples and more."""
    kept = np.zeros_like(at)
    for start, stop in runs_of(at):
        if stop - start >= n_shortest:
            kept[start:stop] = True
    return kept


def standstills(record: Record, levels: Levels) -> list[str]:
    """Return warnings for leads that stand still, wholly or for a second and longer."""
    flat = [name for name, low, high in zip(record.leads, levels.low, levels.high, strict=True) if low == high]
    still: dict[str, float] = {}
    unmoved = (levels.thin[:, 1:] == levels.thin[:, :-1]).sum(axis=1)
    for row in np.flatnonzero((unmoved >= STILL_VALUES) & (levels.low < levels.high)):
        if (seconds := _still_s(record.signal[row], levels.thin[row], levels.stride, record.fs)) > 0:
            still[record.leads[row]] = seconds
    if len(flat) == record.n_leads:
        return ["every lead is flat"]
    found = [f"flat: {', '.join(flat)}"] if flat else []
    if still:
        alike = len(still) == record.n_leads and max(still.values()) - min(still.values()) < STANDSTILL_S
        what = (
            f"every lead stands still for {max(still.values()):.1f} s"
            if alike
            else "leads stand still: " + ", ".join(f"{name} {s:.1f} s" for name, s in still.items())
        )
        found.append(f"{what}; filled up, or nothing was connected")
    return found


def _still_s(row: np.ndarray, thin: np.ndarray, stride: int, fs: float) -> float:
    """Return for how many seconds a lead stands still for `STANDSTILL_S` and longer at a time.

    Ten values a second (``thin``) show where that can be: only there every sample is compared.
    """
    n_samples = 0
    for first, last in runs_of(thin[1:] == thin[:-1]):
        if last - first < STILL_VALUES:
            continue
        start, stop = max(0, (first - 1) * stride), min(len(row), (last + 2) * stride)
        for begin, end in runs_of(row[start:stop] == row[first * stride]):
            n_samples += end - begin if end - begin >= STANDSTILL_S * fs else 0
    return n_samples / fs


def clipped_leads(record: Record, levels: Levels) -> list[str]:
    """Return a warning for leads whose peaks are cut off at the converter's limit."""
    pieces = pieces_of(record)
    n_run = max(CLIPPED_SAMPLES, round(CLIPPED_RUN_S * record.fs))
    span = levels.high.astype(np.float64) - levels.low
    clipped: set[int] = set()
    for value in (levels.low, levels.high):
        masks = [piece == value[:, None] for piece in pieces]
        # Most extremes are one sample: counting them is faster than looking for runs.
        n_at = np.sum([[np.count_nonzero(row) for row in mask] for mask in masks], axis=0)
        for row in np.flatnonzero((n_at >= CLIPPED_RUNS * n_run) & (levels.low < levels.high)).tolist():
            n_runs = sum(
                _arrives(piece[row], (start, stop), span[row], record.fs)
                for piece, mask in zip(pieces, masks, strict=True)
                for start, stop in runs_of(mask[row])
                if stop - start >= n_run
            )
            if n_runs >= CLIPPED_RUNS:
                clipped.add(row)
    names = [name for row, name in enumerate(record.leads) if row in clipped]
    return [f"peaks are cut off at the converter's limit: {', '.join(names)}"] if names else []


def _arrives(piece: np.ndarray, run: tuple[int, int], span: float, fs: float) -> bool:
    """Return whether a plateau is one that the signal ran into, rather than the top of a slow wave."""
    start, stop = run
    around = piece[max(0, start - round(fs)) : stop + round(fs)]
    levels = np.unique(around[np.isfinite(around)])
    resolution = float(np.diff(levels).min()) if len(levels) > 1 else 0.0
    if STANDSTILL_S * fs > stop - start >= LONG_RUN_S * fs and span > FINE_LEVELS * resolution:
        return True
    beside = [piece[at] for at in (start - 1, stop) if 0 <= at < len(piece)]
    if len(beside) < 2 or stop - start >= STANDSTILL_S * fs:
        return False
    step = min(abs(float(value - piece[start])) for value in beside)
    return step > CLIPPED_STEP * span and step > 3.5 * resolution


def gaps(record: Record, levels: Levels) -> list[str]:
    """Return a warning that says how much of which leads is not recorded."""
    empty: list[str] = []
    missing: dict[str, tuple[float, int]] = {}
    for at in np.flatnonzero(~levels.whole):
        name, unknown = record.leads[at], np.isnan(record.signal[at])
        n_unknown = np.count_nonzero(unknown)
        if n_unknown == len(unknown):
            empty.append(name)
        elif n_unknown >= max(1.0, GAP_S * record.fs):
            missing[name] = (n_unknown / record.fs, len(runs_of(unknown)))
    found = []
    if empty and len(empty) == record.n_leads:
        return ["nothing was recorded in any lead"]
    if empty:
        found.append(f"nothing was recorded in {', '.join(empty)}")
    if missing:
        if len(missing) == record.n_leads > 1 and len(set(missing.values())) == 1:
            seconds, n_gaps = next(iter(missing.values()))
            texts = [f"{seconds:.1f} s of every lead{_in_gaps(n_gaps)}"]
        else:
            texts = [f"{name} {seconds:.1f} s{_in_gaps(n)}" for name, (seconds, n) in list(missing.items())[:12]]
            texts += [f"{len(missing) - 12} more leads"] * (len(missing) > 12)
        found.append(f"not recorded, of {record.duration_s:.1f} s: {', '.join(texts)}")
    return found


def _in_gaps(n: int) -> str:
    return f" in {n} gaps" if n > 1 else ""


def _some(found: dict[str, int]) -> str:
    """Return up to twelve leads with their counts."""
    texts = [f"{name} {n}" for name, n in list(found.items())[:12]]
    return ", ".join(texts) + (f" and {len(found) - 12} more leads" if len(found) > 12 else "")
