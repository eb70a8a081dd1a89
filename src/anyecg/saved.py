"""What a long analysis has found so far, on disk: a second run goes on where the first was stopped."""

import json
import os
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np

from anyecg import __version__

EVERY_S = 15.0
"""Wall-clock seconds between two savings: so much work may be lost."""


class SavedState:
    """A file of arrays, replaced as a whole; never half-written, never taken for that of another analysis.

    Parameters
    ----------
    path : Path
    belongs_to : dict
        JSON-ready: what the state is of. One of anything else is not loaded.
    """

    def __init__(self, path: Path, belongs_to: dict[str, object]) -> None:
        self.path = path
        self._key = json.dumps({"anyecg": __version__, **belongs_to}, sort_keys=True)
        self._last_s = time.monotonic()
        self.failed = ""

    def is_due(self) -> bool:
        """Return whether it is time to save again."""
        return not self.failed and time.monotonic() - self._last_s >= EVERY_S

    def load(self) -> dict[str, np.ndarray] | None:
        """Return the state; None if there is none, or none that can be used."""
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                if str(stored["belongs_to"]) != self._key:
                    return None
                return {name: stored[name] for name in stored.files if name != "belongs_to"}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def save(self, state: dict[str, np.ndarray] | None) -> None:
        """Write a state; where the disk does not allow it the analysis goes on, and ``failed`` says why."""
        self._last_s = time.monotonic()
        if state is None:
            return
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with beside.open("wb") as file:
                    np.savez(file, belongs_to=np.array(self._key), **state)  # type: ignore[arg-type]  # no array is named "file"
                beside.replace(self.path)
            finally:
                beside.unlink(missing_ok=True)
        except OSError as error:
            self.failed = error.strerror or str(error)

    def remove(self) -> None:
        """Remove the file, if it can be: the analysis is complete."""
        with suppress(OSError):
            self.path.unlink()
