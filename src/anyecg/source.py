"""A file as an analysis sees it: what the user said of it, its stretches one after the other, any part of it again."""

import glob
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from anyecg.errors import ReadError
from anyecg.readers import read, stretches
from anyecg.record import Record


@dataclass(frozen=True)
class Source:
    """A file and the arguments of `anyecg.read` that go with it."""

    path: Path
    start_s: float | None = None
    end_s: float | None = None
    fs: float | None = None
    unit: str | None = None
    fix_units: bool = False

    def stretches(self, damage: list[str], begin_s: float | None = None) -> Iterator[Record]:
        """Yield the recording up to where it cannot be read any further; ``damage`` then says so.

        Parameters
        ----------
        damage : list of str
        begin_s : float, optional
            Begin here, in seconds of the file, not with ``start_s``.

        Raises
        ------
        ReadError
            Nothing can be read.
        """
        start_s = self.start_s if begin_s is None else begin_s
        found = stretches(self.path, start_s=start_s, end_s=self.end_s, **self._asked)
        yield next(found)
        try:
            yield from found
        except ReadError as error:
            damage.append(str(error))

    def read(self, start_s: float, end_s: float) -> Record:
        """Read a part, in seconds from where the analysis began."""
        begin_s = self.start_s or 0.0
        return read(self.path, start_s=begin_s + start_s, end_s=begin_s + end_s, **self._asked)

    def fingerprint(self) -> dict[str, object]:
        """Return what tells this file and these arguments from others: names, sizes and times of change."""
        beside = sorted(p for p in self.path.parent.glob(f"{glob.escape(self.path.stem)}.*") if p.is_file())
        files = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in beside]
        return {**asdict(self), "path": str(self.path), "files": files}

    @property
    def _asked(self) -> dict[str, Any]:
        return {"fs": self.fs, "unit": self.unit, "fix_units": self.fix_units}
