"""What is checked of every record, whatever reader made it."""

import numpy as np

from anyecg.errors import ReadError
from anyecg.leads import unique_names
from anyecg.record import Record

LARGEST_MV = 40.0
"""No lead on the skin spans more; a paced or athletic heart stays below 15 mV."""

SMALLEST_MV = 0.02
"""A recorded lead spans more: 20 uV is the noise of an amplifier."""


def rows_with_names(where: str, raw_names: list[str], warnings: list[str]) -> tuple[str, ...]:
    """Return one standard, unique lead name a row; repeated ones are reported in ``warnings``."""
    names, repeated = unique_names(raw_names)
    if repeated:
        warnings.append(f"lead names repeat ({', '.join(repeated)}): the later ones are numbered and count as unknown")
    return names


def audit(where: str, record: Record) -> Record:
    """Return the record, checked: infinities as NaN, and warnings for what looks wrong.

    Raises
    ------
    ReadError
        There is no lead or no sample in it.
    """
    if record.n_leads == 0 or record.n_samples == 0:
        raise ReadError(
            f"{where}: {record.n_leads} leads of {record.n_samples} samples, expected at least one of each. "
            "Check that the file is complete."
        )
    found: list[str] = []
    infinite = np.isinf(record.signal)
    if infinite.any():
        signal = np.where(infinite, np.float32(np.nan), record.signal)
        record = record.with_(signal=signal)
        found.append(f"{int(infinite.sum())} infinite samples were taken as not recorded")
    found += implausible_amplitudes(record)
    found += identical_leads(record)
    return record.with_warning(*(message for message in found if message not in record.warnings))


def implausible_amplitudes(record: Record) -> list[str]:
    """Return a warning if the amplitudes look like a wrong unit.

    The span is that between the 0.5th and 99.5th percentile, the largest over the leads, so that a spike or one
    lead that is off does not count; the wander is taken out by differencing with the median of each second.
    """
    spans = [span for row in record.signal if (span := _span_mv(row, record.fs)) is not None]
    if not spans or not record.gain_known:
        return []
    largest, middle = max(spans), float(np.median(spans))
    if middle > LARGEST_MV:
        return [f"an amplitude of {middle:.4g} mV is implausible: probably a unit error, or leads that are off"]
    if 0 < largest < SMALLEST_MV:
        return [f"an amplitude of {largest:.4g} mV is implausible: probably a unit error, or nothing was connected"]
    if largest == 0:
        return ["every lead is flat"]
    return []


def _span_mv(row: np.ndarray, fs: float) -> float | None:
    """Return the robust span of one lead in mV, wander removed; None if nothing was recorded."""
    n_second = max(1, round(fs))
    row = row[: 600 * n_second]  # ten minutes tell
    n_whole = len(row) // n_second * n_second
    if n_whole:
        seconds = row[:n_whole].reshape(-1, n_second)
        recorded = np.isfinite(seconds).all(axis=1)
        if recorded.any():
            row = (seconds[recorded] - np.median(seconds[recorded], axis=1, keepdims=True)).ravel()
    row = row[np.isfinite(row)]
    if len(row) == 0:
        return None
    low, high = np.percentile(row, [0.5, 99.5])
    return float(high - low)


def identical_leads(record: Record) -> list[str]:
    """Return a warning for leads that are the same, sample for sample, and not flat."""
    seen: dict[bytes, str] = {}
    same: list[str] = []
    for name, row in zip(record.leads, record.signal, strict=True):
        recorded = row[np.isfinite(row)]
        if len(recorded) < 2 or recorded.min() == recorded.max():
            continue
        # A part of a day-long lead is compared: enough to tell two measured leads apart.
        key = np.ascontiguousarray(row[:100_000]).tobytes()
        if key in seen:
            same.append(f"{name} = {seen[key]}")
        else:
            seen[key] = name
    return [f"leads are identical: {', '.join(same)}"] if same else []
