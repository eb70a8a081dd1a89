"""ISHNE Holter files, a slice at a time: a header of 522 bytes, a comment, and 16-bit samples, lead beside lead.

Source: Badilini, "The ISHNE Holter Standard Output File Format", Ann Noninvasive Electrocardiol 1998, 3:263-266,
doi:10.1111/j.1542-474X.1998.tb00353.x.
"""

import binascii
import struct
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np

from anyecg.errors import ReadError
from anyecg.readers.audit import rows_with_names
from anyecg.readers.patient import age_at
from anyecg.readers.slices import OWN_COUNT, Extent, sample_range
from anyecg.readers.units import rate_of, unit_of
from anyecg.readers.vendors.devices import LEAD_OFF
from anyecg.record import Record

NAME = "ishne"
GROWS = True
"""Its size tells its length: it can be read while it is written."""

MAGIC = b"ISHNE1.0"
HEADER_BYTES = 522
MAX_LEADS = 12

_LEADS = {
    **{1: "bipolar", 2: "X", 3: "Y", 4: "Z", 5: "I", 6: "II", 7: "III", 8: "aVR", 9: "aVL", 10: "aVF"},
    **{11: "V1", 12: "V2", 13: "V3", 14: "V4", 15: "V5", 16: "V6", 17: "ES", 18: "AS", 19: "AI"},
}
"""Lead specification codes; 0 is unknown."""


def sniff(head: bytes, path: Path) -> bool:
    """Return whether the file begins with the standard's magic number (annotation files have another)."""
    return head.startswith(MAGIC)


@dataclass(frozen=True)
class _Holter:
    """What the header says, and how many samples of each lead the file holds."""

    head: bytes
    begin: int
    n_leads: int
    n_samples: int
    leads: tuple[str, ...]


def read(path: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None) -> Record:
    """Read the leads; of the file only the slice is touched.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    where = str(path)
    warnings: list[str] = []
    holter = _opened(path, warnings)
    head, n_leads = holter.head, holter.n_leads
    rate = _rate(where, head, fs)
    first, last = sample_range(where, holter.n_samples, rate, start_s, end_s, warnings)
    frames = np.fromfile(path, "<i2", (last - first) * n_leads, offset=holter.begin + 2 * n_leads * first)
    if len(frames) < (last - first) * n_leads:
        raise ReadError(f"{where}: it ends before {last / rate:.1f} s, expected more. Copy it again.")
    frames = frames.reshape(-1, n_leads)

    nanovolts = struct.unpack_from(f"<{n_leads}h", head, 206)
    signal = np.empty((n_leads, last - first), dtype=np.float32)
    uncalibrated, n_off = [], 0
    for i, name in enumerate(holter.leads):
        counts = np.ascontiguousarray(frames[:, i])
        if nanovolts[i] > 0:
            factor = unit_of(where, "nV", unit) * nanovolts[i]
        else:
            factor = 1e-3 if unit is None else unit_of(where, None, unit)
            if unit is None:
                uncalibrated.append(name)
        np.multiply(counts, factor, out=signal[i], casting="unsafe")
        off = counts == LEAD_OFF
        signal[i, off] = np.nan
        n_off += int(off.sum())
    if uncalibrated:
        warnings.append(f"no scale in the file, so 1 uV per unit is assumed: {', '.join(uncalibrated)}")
    if n_off:
        warnings.append(f"{n_off} samples of {LEAD_OFF} (lead off) are taken as not recorded")
    started = _start_time(head)
    return Record(
        signal=signal,
        fs=rate,
        leads=rows_with_names(list(holter.leads), warnings),
        id=path.stem,
        format=NAME,
        age=age_at(_day(head, 132), _day(head, 138)),
        sex={1: "male", 2: "female"}.get(struct.unpack_from("<h", head, 128)[0]),
        start_time=started + timedelta(seconds=first / rate) if started else None,
        start_s=first / rate,
        gain_known=not uncalibrated,
        warnings=tuple(warnings),
    )


def extent(path: Path, fs: float | None, unit: str | None) -> Extent:
    """Return how long a file is, by its size.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    holter = _opened(path, [])
    names = rows_with_names(list(holter.leads), [])
    return Extent(holter.n_samples, _rate(str(path), holter.head, fs), names)


def _opened(path: Path, warnings: list[str]) -> _Holter:
    """Read and check the header.

    Raises
    ------
    ReadError
        It is damaged or cut short.
    """
    where, size = str(path), path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
        whole = len(head) == HEADER_BYTES
        comment_bytes, stated, _, at_data = struct.unpack_from("<4i", head, 10) if whole else (-1, 0, 0, 0)
        n_leads = int.from_bytes(head[156:158], "little", signed=True)
        begin = HEADER_BYTES + comment_bytes
        if comment_bytes < 0 or begin > size or not 1 <= n_leads <= MAX_LEADS:
            raise ReadError(
                f"{where}: {n_leads} leads and a comment of {comment_bytes} bytes in a file of {size}, expected 1 to "
                f"{MAX_LEADS} leads. The file is cut short or damaged."
            )
        stored = int.from_bytes(head[8:10], "little")
        if stored:
            found = binascii.crc_hqx(head[10:] + file.read(comment_bytes), 0xFFFF)
            if stored not in (found, int.from_bytes(found.to_bytes(2, "big"), "little")):  # its order is not laid down
                warnings.append("the checksum of the header differs: it may be damaged")
    if at_data != begin:
        warnings.append(f"the samples should begin at byte {at_data}, but the comment ends at {begin}: that is taken")
    n_samples, left = divmod(size - begin, 2 * n_leads)
    if left or (n_samples < stated < 2**31 - 1):
        # Some recorders write their greatest length into every file, so that this alone is no damage.
        warnings.append(f"the file has {n_samples} samples a lead, {stated} {OWN_COUNT}")
    codes = struct.unpack_from(f"<{n_leads}h", head, 158)
    leads = tuple(_LEADS.get(code, f"lead{i + 1}") for i, code in enumerate(codes))
    return _Holter(head, begin, n_leads, n_samples, leads)


def _rate(where: str, head: bytes, fs: float | None) -> float:
    return rate_of(where, float(struct.unpack_from("<h", head, 272)[0]), fs)


def _day(head: bytes, at: int) -> date | None:
    """Return a date of day, month and year; None if it is none."""
    day, month, year = struct.unpack_from("<3h", head, at)
    try:
        return date(year, month, day)
    except ValueError:
        return None


def _start_time(head: bytes) -> datetime | None:
    """Return when the recording began; None if the file does not say it whole."""
    day = _day(head, 138)
    hour, minute, second = struct.unpack_from("<3h", head, 150)
    try:
        return None if day is None else datetime(day.year, day.month, day.day, hour, minute, second)
    except ValueError:
        return None
