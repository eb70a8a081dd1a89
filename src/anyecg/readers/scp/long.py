"""The long-term recording of SCP-ECG version 3 (EN 1064:2020, section 12).

The layout is that of BioSig (sopen_scp_read.c and sopen_scp_write.c), one of whose authors is one of the standard's;
its text was not at hand, and no real file. Little endian, behind the section's header of 16 bytes:

    0   rate in Hz u32, leads u8, samples of each lead u32, bytes a sample u8 (1 to 4)
    10  year u16, month, day, hour, minute, second u8
    17  filters and what else is not read
    62  lengths u32 of two blocks that begin at 70 and are not read
        for each lead: its code u8, nV of one unit u16, reserved u8
        samples, signed, of all leads in turn
"""

import struct
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from anyecg.errors import ReadError

FIXED_BYTES = 70
LEAD_BYTES = 4

_TYPES = {1: "i1", 2: "<i2", 4: "<i4"}


@dataclass(frozen=True)
class LongTerm:
    """A recording, still in units.

    Parameters
    ----------
    counts : ndarray of uint8 or int, shape (n_samples, n_leads) or, of three bytes a sample, (n_samples, n_leads, 3)
    names : list of str
    nanovolts : ndarray of float64, shape (n_leads,)
    fs : float
        Hz.
    started : datetime or None
    warnings : tuple of str
    """

    counts: np.ndarray
    names: list[str]
    nanovolts: np.ndarray
    fs: float
    started: datetime | None
    warnings: tuple[str, ...]

    def millivolts(self, first: int, last: int) -> np.ndarray:
        """Return float32 (n_leads, last - first) in mV; the smallest value of two bytes is taken as not recorded."""
        part = self.counts[first:last]
        if part.ndim == 3:  # the third byte has the sign
            low, middle, high = np.moveaxis(part.astype(np.int32), 2, 0)
            part = low | middle << 8 | np.where(high > 127, high - 256, high) << 16
        scaled: np.ndarray = part.T.astype(np.float32) * (self.nanovolts[:, None] * 1e-6).astype(np.float32)
        if self.counts.dtype == np.dtype("<i2"):
            scaled[part.T == np.iinfo(np.int16).min] = np.nan
        return scaled


def parse(where: str, body: bytes, lead_names: dict[int, str]) -> LongTerm:
    """Return the recording in the body of a section 12.

    Raises
    ------
    ReadError
        It is cut short before its samples, or says a rate, a number of leads or of bytes that cannot be.
    """
    if len(body) < FIXED_BYTES:
        raise ReadError(
            f"{where}: section 12 of {len(body)} bytes, expected {FIXED_BYTES} or more. The file is damaged."
        )
    rate, n_leads, n_samples, n_bytes = struct.unpack_from("<IBIB", body)
    skipped = sum(struct.unpack_from("<II", body, 62))
    at = FIXED_BYTES + skipped
    begin = at + LEAD_BYTES * n_leads
    if n_leads == 0 or n_bytes not in (1, 2, 3, 4) or begin > len(body):
        raise ReadError(
            f"{where}: section 12 of {n_leads} leads and {n_bytes} bytes a sample that begin at byte {begin} of "
            f"{len(body)}, expected leads, 1 to 4 bytes, and samples. The file is damaged."
        )
    warnings = []
    held = (len(body) - begin) // (n_leads * n_bytes)
    if held < n_samples:
        warnings.append(f"section 12 has {held} of its {n_samples} samples: the file is cut short")
    n_samples = min(held, n_samples)
    if n_samples == 0:
        raise ReadError(f"{where}: section 12 without samples, expected some. The file is damaged.")
    codes = [struct.unpack_from("<BH", body, at + LEAD_BYTES * i) for i in range(n_leads)]
    samples = body[begin : begin + n_samples * n_leads * n_bytes]
    shape = (n_samples, n_leads) if n_bytes != 3 else (n_samples, n_leads, 3)
    if unscaled := [lead_names.get(code, f"lead{code}") for code, nanovolts in codes if nanovolts == 0]:
        raise ReadError(f"{where}: no scale of {', '.join(unscaled)} in section 12, expected one. The file is damaged.")
    return LongTerm(
        counts=np.frombuffer(samples, _TYPES.get(n_bytes, "u1")).reshape(shape),
        names=[lead_names.get(code, f"lead{code}") for code, _ in codes],
        nanovolts=np.array([nanovolts for _, nanovolts in codes], float),
        fs=float(rate),
        started=_time(body[10:17]),
        warnings=tuple(warnings),
    )


def _time(value: bytes) -> datetime | None:
    """Return a year of two bytes, month, day, hour, minute and second; None if they are none."""
    try:
        return datetime(int.from_bytes(value[:2], "little"), *value[2:7])
    except ValueError:
        return None
