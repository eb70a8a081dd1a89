"""Result -> a file to look at: HTML (everything), PNG (the ECG page), JSON (the numbers)."""

import json
import os
from pathlib import Path

from anyecg.errors import WriteError
from anyecg.report.text import summary
from anyecg.result import Result

__all__ = ["summary", "write_report"]

SUFFIXES = (".html", ".png", ".json")


def write_report(result: Result, path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Write a report; the suffix of the path says which kind.

    Parameters
    ----------
    result : Result
        What `anyecg.analyze` returned.
    path : path-like
        ``.html``: one self-contained page; ``.png``: the first sheet of ECG paper; ``.json``: ``result.to_dict()``.
    force : bool
        Replace a file that is already there.

    Returns
    -------
    Path
        Where the report is.

    Raises
    ------
    ValueError
        Another suffix.
    WriteError
        The file exists and ``force`` is False, or it cannot be written.
    MissingDependency
        A PNG without matplotlib.

    Notes
    -----
    The file appears whole or not at all: it is written beside its place and then moved there.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"{path}: a report ends in {', '.join(SUFFIXES)}; this path ends in {path.suffix or 'nothing'!r}"
        )
    _refuse_existing(path, force)
    _replace(path, _content(result, suffix), force)
    return path


def _content(result: Result, suffix: str) -> bytes:
    if suffix == ".json":
        text = json.dumps(result.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        return text.encode(errors="backslashreplace")  # of a lone surrogate: JSON's own escape, as it happens
    if suffix == ".png":
        from anyecg.report import picture

        return picture.render(result)
    from anyecg.report import page

    # a file's text may hold lone surrogates, which UTF-8 cannot; they become question marks
    return page.render(result).encode("utf-8", errors="replace")


def _refuse_existing(path: Path, force: bool) -> None:
    if path.is_dir():
        raise WriteError(f"{path}: is a folder, expected the name of a file. Choose another name.")
    if path.exists() and not force:
        raise WriteError(
            f"{path}: exists already, expected a new name. Choose another, or allow overwriting with force."
        )


def _replace(path: Path, content: bytes, force: bool) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            beside.write_bytes(content)
            _refuse_existing(path, force)  # somebody may have written it while we drew
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(
            f"{path}: cannot be written ({reason}). Check the folder, its rights and the free space."
        ) from error
