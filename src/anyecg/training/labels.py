"""A CSV of labels -> which file is what, whose it is, and in which split."""

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anyecg.errors import ReadError

SPLITS = ("train", "val", "test")
VALIDATION_SHARE = 0.2
OWN_COLUMNS = ("file", "label", "patient", "split")


@dataclass(frozen=True, eq=False)
class LabelledFile:
    """One row: ``labels`` float32 (n_labels,), 1, 0 or NaN = not known."""

    file: Path
    labels: np.ndarray
    patient: str
    split: str


@dataclass(frozen=True)
class LabelTable:
    """All rows of a CSV. ``exclusive``: one label a record."""

    path: Path
    names: tuple[str, ...]
    exclusive: bool
    rows: tuple[LabelledFile, ...]


def read_labels(path: Path) -> LabelTable:
    """Read a CSV of labels.

    Columns: ``file``, relative to the CSV's folder; then either ``label``, one a record, or one column a label with 1,
    0, or nothing where it is not known; if known ``patient`` (default: every file is a patient of its own) and
    ``split``. Without ``split`` a fifth of the patients, by a hash of their names, is ``val`` and the rest ``train``.
    Blanks around a cell do not count; a column without a name, such as a table program's row numbers, is left out.

    Raises
    ------
    ReadError
        There is no such file, or it is not text.
    ValueError
        A column is missing, a value is none of those, a patient is in two splits, or a split is empty. The message
        names the line.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = _lines(path, file)
            columns = list(lines[0][1]) if lines else []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReadError(f"{path}: {error}. Expected a CSV of labels.") from error
    if not lines:
        raise ValueError(f"{path}: no rows, expected a header and one row a file")
    if "file" not in columns:
        raise ValueError(f"{path}: columns are {', '.join(map(str, columns))}; expected one called file")
    exclusive = "label" in columns
    named = [c for c in columns if c not in OWN_COLUMNS]
    if exclusive and named:
        raise ValueError(f"{path}: a column label and others ({', '.join(named)}); expected one or the other")
    names = tuple(sorted({line["label"] for _, line in lines} - {""})) if exclusive else tuple(named)
    if len(names) < (2 if exclusive else 1):
        raise ValueError(f"{path}: labels are {', '.join(names) or 'none'}; expected {'two' if exclusive else 'one'}")
    rows = tuple(_row(path, number, line, names, exclusive) for number, line in lines)
    if "split" not in columns:
        rows = tuple(_assigned(row) for row in rows)
    _check_splits(path, rows)
    return LabelTable(path, names, exclusive, rows)


def _lines(path: Path, file: Iterable[str]) -> list[tuple[int, dict[str, str]]]:
    """Return the number and the named cells of each line that is not blank.

    Raises
    ------
    ValueError
        A line has more cells than the header.
    """
    reader = csv.reader(file)
    header = [name.strip() for name in next(reader, [])]
    lines = []
    for row in reader:
        if len(row) > len(header) and any(row[len(header) :]):
            raise ValueError(
                f"{path}, line {reader.line_num}: {len(row)} cells, expected {len(header)} as in the header"
            )
        cells = [cell.strip() for cell in row] + [""] * (len(header) - len(row))
        if any(cells):
            named = {name: cell for name, cell in zip(header, cells, strict=False) if name}
            lines.append((reader.line_num, named))
    return lines


def _row(path: Path, number: int, line: dict[str, str], names: tuple[str, ...], exclusive: bool) -> LabelledFile:
    where = f"{path}, line {number}"
    if not line["file"]:
        raise ValueError(f"{where}: no file name")
    if exclusive:
        if not line["label"]:
            raise ValueError(f"{where}: no label, expected one of {', '.join(names)}")
        labels = np.array([float(line["label"] == name) for name in names], dtype=np.float32)
    else:
        values = {"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "": np.nan}
        for name in names:
            if line[name] not in values:
                raise ValueError(f"{where}: {name} is {line[name]!r}, expected 1, 0 or nothing")
        labels = np.array([values[line[name]] for name in names], dtype=np.float32)
    split = line.get("split") or "train"
    if split not in SPLITS:
        raise ValueError(f"{where}: split is {split!r}, expected {', '.join(SPLITS)}")
    return LabelledFile(path.parent / line["file"], labels, line.get("patient") or line["file"], split)


def _assigned(row: LabelledFile) -> LabelledFile:
    """Give a row without a split the one its patient's name is hashed to."""
    drawn = int(hashlib.sha256(row.patient.encode()).hexdigest()[:8], 16) / 16**8
    return LabelledFile(row.file, row.labels, row.patient, "val" if drawn < VALIDATION_SHARE else "train")


def _check_splits(path: Path, rows: tuple[LabelledFile, ...]) -> None:
    split_of: dict[str, str] = {}
    for row in rows:
        if split_of.setdefault(row.patient, row.split) != row.split:
            raise ValueError(
                f"{path}: patient {row.patient} is in {split_of[row.patient]} and in {row.split}; a patient may be in "
                "one split only"
            )
    for split in ("train", "val"):
        if split not in split_of.values():
            raise ValueError(
                f"{path}: no record in split {split} ({len(rows)} rows); expected some. Add a column split, or rows"
            )
