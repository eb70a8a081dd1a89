"""A recording that is still written: what has come since the last look, in whole samples of all leads."""

import tempfile
import time
from collections.abc import Callable, Iterator
from math import isfinite
from pathlib import Path

from anyecg.errors import ReadError
from anyecg.readers.slices import OWN_COUNT
from anyecg.readers.stretches import STRETCH_S, Common, cannot_go_on, cut
from anyecg.readers.units import check_arguments
from anyecg.record import Record

JUDGED_S = 10.0
"""What is shorter is not asked whether it looks like an ECG: half a second is often flat."""

REST = 4.0
"""After a look that took long, as of a long table, so many times as long is waited: a fifth of a processor is used."""

SAME_RATE = 0.01
"""A rate that is told by the times of a table settles as it grows, by no more than this share."""


def follow(
    path: str | Path,
    *,
    poll_s: float = 0.5,
    idle_s: float = 10.0,
    fs: float | None = None,
    unit: str | None = None,
    stop: Callable[[], bool] | None = None,
) -> Iterator[Record]:
    """Read a recording while it is written.

    Parameters
    ----------
    path, fs, unit
        As for `anyecg.readers.read`; the file may be about to be made. WFDB (all but FLAC and format 8), EDF, BDF and
        ISHNE are read as far as their size goes, whatever their header says of the length; tables row by row.
    poll_s : float
        Seconds between two looks.
    idle_s : float
        The recording has ended when nothing has come for so many seconds.
    stop : callable, optional
        Asked before each look; True ends it.

    Yields
    ------
    Record
        What has come, at most ten minutes at a time, with ``start_s``; one follows the other without a gap. An
        incomplete last row, frame or data record waits.

    Raises
    ------
    ReadError
        There is no file for ``idle_s``, it is of another format, or what came cannot be read.
    ValueError
        An argument is no number of seconds, no rate or no unit.

    Notes
    -----
    A table is read anew at each look, so the longer it is, the longer are the pauses. Leads of a lower rate are brought
    to the highest one from look to look: where two looks meet, they are less exact.
    """
    check_arguments(fs, unit)
    for name, value in (("poll_s", poll_s), ("idle_s", idle_s)):
        if not (isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value}, allowed are seconds from 0 on")
    return _follow(Path(path), poll_s, idle_s, fs, unit, stop or (lambda: False))


def _follow(
    path: Path, poll_s: float, idle_s: float, fs: float | None, unit: str | None, stop: Callable[[], bool]
) -> Iterator[Record]:
    common = Common(str(path), False)
    done, done_s = 0, 0.0
    news_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="anyecg-") as folder:
        look: _Rows | _Samples | None = None
        while not stop():
            began, took, trouble = time.monotonic(), 0.0, None
            try:
                if look is None or done == 0:  # of the first bytes alone, the format may not be told
                    look = _way(path, Path(folder), fs, unit)
                for raw in look.behind(done):
                    took = took or time.monotonic() - began
                    raw = raw.with_(warnings=tuple(m for m in raw.warnings if OWN_COUNT not in m))
                    yield common.checked(raw) if raw.duration_s >= JUDGED_S else common.as_before(raw)
                    done, done_s = done + raw.n_samples, (done + raw.n_samples) / raw.fs
                    news_at = time.monotonic()
            except ReadError as error:  # not there yet, or its header is being written
                trouble = error
            if time.monotonic() - news_at >= idle_s:
                if trouble is not None:
                    raise trouble if done == 0 else cannot_go_on(path, done_s, str(trouble))
                return
            time.sleep(max(poll_s, REST * took if isinstance(look, _Rows) else 0.0))


def _way(path: Path, folder: Path, fs: float | None, unit: str | None) -> "_Rows | _Samples":
    """Return what looks for new samples.

    Raises
    ------
    ReadError
        There is no way for such a file, or it is not there.
    """
    from anyecg.readers import reader_of
    from anyecg.readers.tabular import tables

    reader, file = reader_of(path)
    if reader is tables:
        copy = folder / file.name
        copy.unlink(missing_ok=True)
        return _Rows(file, copy, fs, unit)
    if not getattr(reader, "GROWS", False):
        raise ReadError(
            f"{path}: {reader.NAME} cannot be read while it grows, expected WFDB, EDF, BDF, ISHNE or a table. Read it "
            "when it is complete."
        )
    return _Samples(path, fs, unit)


class _Samples:
    """A file whose size tells its length."""

    def __init__(self, path: Path, fs: float | None, unit: str | None) -> None:
        self.path, self.fs, self.unit = path, fs, unit

    def behind(self, done: int) -> Iterator[Record]:
        """Yield what lies behind some samples.

        Raises
        ------
        ReadError
            It cannot be read, or its format has no slices.
        """
        from anyecg.readers import cheap_extent, read_source

        known = cheap_extent(self.path, self.fs, self.unit)
        if known is None:
            raise ReadError(
                f"{self.path}: no slice of such a file can be read, expected another format while it grows. Read it "
                "when it is complete."
            )
        while done < known.n_samples:
            last = min(done + round(STRETCH_S * known.fs), known.n_samples)
            yield read_source(self.path, done / known.fs, last / known.fs, self.fs, self.unit)
            done = last


class _Rows:
    """A table that grows; its whole lines are copied as they come, so that no number is read while it is written."""

    def __init__(self, file: Path, copy: Path, fs: float | None, unit: str | None) -> None:
        self.file, self.copy, self.fs, self.unit = file, copy, fs, unit
        self.n_bytes = 0
        self.rate: float | None = None

    def behind(self, done: int) -> Iterator[Record]:
        """Yield what lies behind some samples.

        Raises
        ------
        ReadError
            It is no table yet, or none any more.
        """
        from anyecg.readers import read_source

        with self.file.open("rb") as file:
            file.seek(self.n_bytes)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        if not whole:
            return
        with self.copy.open("ab") as copy:
            copy.write(whole)
        self.n_bytes += len(whole)
        try:
            found = read_source(self.copy, None, None, self.fs, self.unit)
        except ReadError as error:
            raise ReadError(str(error).replace(str(self.copy), str(self.file))) from error
        self.rate = self.rate or found.fs
        if abs(found.fs / self.rate - 1) > SAME_RATE:
            raise ReadError(
                f"{self.file}: its times say {found.fs:g} Hz, expected {self.rate:g} Hz as before. Give the rate with "
                "--fs (fs=)."
            )
        found = found.with_(fs=self.rate)
        step = round(STRETCH_S * self.rate)
        for first in range(done, found.n_samples, step):
            yield cut(found, first, min(first + step, found.n_samples))
