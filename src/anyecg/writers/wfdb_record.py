"""WFDB: NAME.hea, NAME.dat (format 16) and, if there are beats or rhythms, NAME.atr."""

import re
import warnings
from math import isfinite
from pathlib import Path

import numpy as np

from anyecg.errors import SignalError
from anyecg.record import Record

LARGEST_COUNT = 32767
MISSING_COUNT = -32768
"""Format 16's "no sample" (signal-5, format 16); wfdb reads it as NaN."""

FINEST_UNITS_PER_MV = 1_000_000.0
"""A nanovolt: finer than any device, and than float32 from 8 mV on."""

_DECIMALS = (1.0, 2.0, 2.5, 4.0, 5.0, 8.0)


def files(record: Record, path: Path) -> list[Path]:
    """Return the files that are written, the header last: a record is there once its header is."""
    name = record_name(path)
    suffixes = [".dat", *([".atr"] if _marks(record) else []), ".hea"]
    return [path.with_name(name + suffix) for suffix in suffixes]


def record_name(path: Path) -> str:
    """Return a name that WFDB allows: letters, digits, ``-`` and ``_``.

    Raises
    ------
    ValueError
        The path's name has other characters.
    """
    name = path.stem if path.suffix.lower() in (".hea", ".dat", ".atr") else path.name
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"the WFDB record name is {name!r}, allowed are letters, digits, '-' and '_'")
    return name


def write(record: Record, folder: Path, path: Path) -> None:
    """Write the record's files into ``folder``.

    Each lead has its own gain: the finest of 1, 2, 2.5, 4, 5, 8 times a power of ten with which its range fits into 16
    bits, so that a lead within +-32 mV is kept to 1 uV or finer.
    """
    name = record_name(path)
    counts, gains, baselines = to_counts(record)
    counts.T.astype("<i2").tofile(folder / f"{name}.dat")
    lines = [_record_line(name, record)]
    for lead, row, gain, baseline in zip(record.leads, counts, gains, baselines, strict=True):
        checksum = int(row.astype(np.int64).sum()) & 0xFFFF
        lead_name = " ".join(lead.split()) or "lead"
        lines.append(f"{name}.dat 16 {_number(gain)}({baseline})/mV 16 0 {int(row[0])} {checksum} 0 {lead_name}")
    lines += [f"# {comment}" for comment in comments(record)]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    if marks := _marks(record):
        _write_marks(marks, record, folder, name)


def to_counts(record: Record) -> tuple[np.ndarray, list[float], list[int]]:
    """Return int16 counts, and the gain (units per mV) and baseline of each lead.

    Raises
    ------
    SignalError
        There is no sample, or a lead is beyond what 16 bits hold at one count a volt.
    """
    if record.n_samples == 0 or record.n_leads == 0:
        raise SignalError(f"{record.id}: no sample to write, expected at least one. Choose another record.")
    counts = np.full(record.signal.shape, MISSING_COUNT, dtype=np.int16)
    gains, baselines = [], []
    for out, row in zip(counts, record.signal.astype(np.float64), strict=True):
        recorded = np.isfinite(row)
        low, high = (float(row[recorded].min()), float(row[recorded].max())) if recorded.any() else (0.0, 0.0)
        gain, baseline = gain_for(low, high)
        out[recorded] = np.round(row[recorded] * gain).astype(np.int64) + baseline
        gains.append(gain)
        baselines.append(baseline)
    return counts, gains, baselines


def gain_for(low_mv: float, high_mv: float) -> tuple[float, int]:
    """Return the finest round gain and a baseline with which a range of mV fits into 16 bits.

    Examples
    --------
    >>> gain_for(-1.0, 2.0)
    (10000.0, 0)
    >>> gain_for(0.0, 0.0)
    (1000.0, 0)
    """
    largest = max(abs(low_mv), abs(high_mv))
    if largest == 0:
        return 1000.0, 0
    centre = 0.0
    if largest > high_mv - low_mv:  # mostly an offset: its middle becomes count 0, rather than lose resolution to it
        centre = (low_mv + high_mv) / 2
        largest = (high_mv - low_mv) / 2
    power = 10.0 ** np.arange(-3, 7)
    allowed = np.sort(np.outer(power, _DECIMALS).ravel())
    fitting = allowed[(allowed * max(largest, 1e-9) + 1 <= LARGEST_COUNT) & (allowed <= FINEST_UNITS_PER_MV)]
    # The baseline is an int32 for wfdb: a large offset limits the gain too.
    fitting = fitting[fitting * abs(centre) < 2**31 - 2]
    if len(fitting) == 0:
        raise SignalError(f"{low_mv:.4g} to {high_mv:.4g} mV do not fit into WFDB's 16 bits. Check the unit.")
    gain = float(fitting[-1])
    return gain, -round(centre * gain)


def comments(record: Record) -> list[str]:
    """Return the header's comments: who, what is not measured, and what the reader had to bend."""
    lines = []
    if record.age is not None:
        lines.append(f"Age: {record.age:g}")
    if record.sex is not None:
        lines.append(f"Sex: {record.sex.capitalize()}")
    if record.weight_kg is not None:
        lines.append(f"Weight: {record.weight_kg:g}")
    codes = [a.code for a in record.annotations if a.kind == "diagnosis" and a.score is None and a.code.isdigit()]
    if codes:
        lines.append(f"Dx: {','.join(dict.fromkeys(codes))}")
    if not record.gain_known:
        lines.append("Gain: not known, the millivolts are not calibrated")
    if record.derived:
        lines.append(f"Derived leads: {', '.join(name for name in record.leads if name in record.derived)}")
    if record.restored:
        lines.append(f"Restored leads: {', '.join(name for name in record.leads if name in record.restored)}")
    return lines + [f"Warning: {' '.join(warning.split())}" for warning in record.warnings]


def _record_line(name: str, record: Record) -> str:
    """Return ``NAME LEADS RATE SAMPLES TIME DATE``."""
    line = f"{name} {record.n_leads} {_number(record.fs)} {record.n_samples}"
    if record.start_time is not None:
        line += record.start_time.strftime(" %H:%M:%S.%f %d/%m/%Y")
    return line


def _number(value: float) -> str:
    """Return the shortest decimal that reads back as the same float, without an exponent (wfdb reads none)."""
    if value == round(value):
        return str(int(value))
    return np.format_float_positional(value, unique=True, trim="-")


def _marks(record: Record) -> list[tuple[int, str, str]]:
    """Return ``(sample, symbol, note)`` of the file's beats and rhythms, in time; what a model said is left out."""
    from anyecg.readers.wfdb_annotations import BEAT_SYMBOLS

    marks: list[tuple[int, str, str]] = []
    starts = {round(a.start_s * record.fs) for a in record.annotations if a.kind == "rhythm" and isfinite(a.start_s)}
    for annotation in record.annotations:
        if annotation.kind not in ("beat", "rhythm") or not isfinite(annotation.start_s):
            continue
        sample = round(annotation.start_s * record.fs)
        if not 0 <= sample < record.n_samples:
            continue
        if annotation.kind == "rhythm":
            marks.append((sample, "+", f"({annotation.code}"))
            end = round(annotation.end_s * record.fs) if isfinite(annotation.end_s) else record.n_samples
            if end < record.n_samples and end not in starts:  # WFDB rhythms end where the next begins: one without name
                marks.append((end, "+", "("))
        elif annotation.code in BEAT_SYMBOLS:
            marks.append((sample, annotation.code, ""))
    return sorted(marks, key=lambda mark: (mark[0], mark[1] != "+"))


def _write_marks(marks: list[tuple[int, str, str]], record: Record, folder: Path, name: str) -> None:
    """Write NAME.atr through wfdb."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # wfdb 4.3 calls pandas in ways that this deprecates
        import wfdb

        wfdb.wrann(
            name,
            "atr",
            sample=np.array([sample for sample, _, _ in marks], dtype=np.int64),
            symbol=[symbol for _, symbol, _ in marks],
            aux_note=[note for _, _, note in marks],
            write_dir=str(folder),
        )
