"""Parquet: a column a lead.

What is known besides is JSON under the key ``anyecg`` of the schema, as our writer puts it, or plain keys there
(``fs_hz``, ``unit``, ...), or units in the columns' names.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.errors import ReadError
from anyecg.readers.slices import Extent, check_size
from anyecg.readers.tabular.columns import MAX_COLUMNS, Table, extent_of, read_table
from anyecg.readers.tabular.named import meaning_of
from anyecg.readers.tabular.times import Times
from anyecg.record import Annotation, Record

NAME = "parquet"

MAGIC = b"PAR1"

METADATA_KEY = b"anyecg"
VERSION = 1

MOST_GROUP_ROWS = 2_000_000
"""Of a file that is read by stretches; a group's column is unpacked as a whole, and Arrow puts 1,048,576 in one."""

AT_ONCE_VALUES = 2_000_000
"""A table of no more is read whole: that is faster than column by column, which needs less memory."""


def sniff(head: bytes, path: Path) -> bool:
    """Return whether the file starts with Parquet's mark (Apache Parquet, file format)."""
    return head.startswith(MAGIC)


def read(path: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None) -> Record:
    """Read a table of one column a lead.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    with _open(path) as file:
        table, said = _table(path, file)
        record = read_table(path, table, NAME, start_s, end_s, fs, unit)
    source_fs = said.get("source_fs_hz")
    if isinstance(source_fs, int | float) and source_fs > 0:
        record = record.with_(source_fs=float(source_fs))
    return record.with_(annotations=_annotations(str(path), said.get("annotations"), record))


def extent(path: Path, fs: float | None, unit: str | None) -> Extent | None:
    """Return how long a table is; None where its groups of rows are so long that a slice costs much more.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    with _open(path) as file:
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        if not _is_flat(file) or max(groups, default=0) > MOST_GROUP_ROWS:
            return None
        return extent_of(path, _table(path, file)[0], fs, unit)


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        text = " ".join(str(error).split())[:200]
        raise ReadError(f"{path}: not whole Parquet ({text}), expected a table. Save it again.") from error


def _table(path: Path, file: Any) -> tuple[Table, dict[str, Any]]:
    """Return the table, long columns unread, and what the schema's metadata say."""
    where, schema = str(path), file.schema_arrow
    if len(schema) > MAX_COLUMNS:
        raise ReadError(f"{where}: {len(schema)} columns, expected at most {MAX_COLUMNS}. One lead is one.")
    check_size(where, file.metadata.num_rows * len(schema), path.stat().st_size)
    said = _said(where, schema.metadata or {})
    table = _columns(where, file, schema)
    table.meta |= {key: _plain(value) for key, value in said.items() if key not in ("annotations", "warnings")}
    table.meta = {key: text for key, text in table.meta.items() if text}
    table.warnings += [text for text in said.get("warnings") or [] if isinstance(text, str)]
    return table, said


def _is_flat(file: Any) -> bool:
    """Return whether a name selects one column, whose place in the file is that in the schema: none is nested."""
    names = file.schema_arrow.names
    return bool(file.metadata.num_columns == len(names) == len(set(names)))


class Column:
    """A column of numbers that stays in the file: a slice of it is unpacked from the groups of rows it lies in."""

    def __init__(self, file: Any, place: int, name: str) -> None:
        metadata = file.metadata
        parts = [metadata.row_group(i).column(place).statistics for i in range(file.num_row_groups)]
        self.file, self.name = file, name
        # One kind of number for the whole column, whatever a slice of it holds.
        self.has_nulls = any(part is None or not part.has_null_count or part.null_count for part in parts)
        lengths = [metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        self.starts = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, part: slice) -> np.ndarray:
        first, last, _ = part.indices(len(self))
        begin = int(np.searchsorted(self.starts, first, side="right")) - 1
        end = int(np.searchsorted(self.starts, last))
        if first >= last:
            begin, end = 0, 0
        found = self.file.read_row_groups(list(range(begin, end)), columns=[self.name], use_threads=False).column(0)
        return _numbers(found.slice(first - int(self.starts[begin]), max(0, last - first)), self.has_nulls)


def _numbers(column: Any, has_nulls: bool) -> np.ndarray:
    import pyarrow as pa

    if has_nulls:
        column = column.cast(pa.float64())
    numbers: np.ndarray = column.to_numpy(zero_copy_only=False)
    return numbers


def _said(where: str, metadata: dict[bytes, bytes]) -> dict[str, Any]:
    """Return what the schema's metadata say of the record."""
    if METADATA_KEY in metadata:
        try:
            said = json.loads(metadata[METADATA_KEY])
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise ReadError(f"{where}: metadata 'anyecg' that are no JSON object, expected one. Save it again.")
        if said.get("version") != VERSION:
            raise ReadError(f"{where}: version {said.get('version')!r}, expected {VERSION}. Use a newer anyecg.")
        return said
    texts = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in metadata.items()}
    meanings = {key: meaning_of(key) for key in texts}
    return {str(meanings[key]): text for key, text in texts.items() if meanings[key] not in (None, "leads", "signal")}


def _plain(value: Any) -> str:
    """Return a value as our CSV's comment lines would have it."""
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return repr(value)
    return "" if value is None else str(value)


def _columns(where: str, file: Any, schema: Any) -> Table:
    """Return the columns of numbers and of times; long ones of numbers are left unread."""
    import pyarrow as pa

    table = Table([], [])
    wanted: list[Any] = []
    left: list[Any] = []
    for field in schema:
        known = pa.types.is_integer(field.type) or pa.types.is_floating(field.type) or pa.types.is_timestamp(field.type)
        (wanted if known else left).append(field)
    whole = None
    if file.metadata.num_rows * len(wanted) <= AT_ONCE_VALUES:
        whole = file.read(columns=[field.name for field in wanted])
    for i, field in enumerate(wanted):
        kind = field.type
        if whole is None and _is_flat(file) and not pa.types.is_timestamp(kind):
            _add(table, field, Column(file, schema.get_field_index(field.name), field.name))
            continue
        if whole is not None and whole.num_columns == len(wanted):  # a name may select parts of a nested one, too
            column = whole.column(i)
        else:
            column = file.read(columns=[field.name]).column(0)
        if pa.types.is_timestamp(kind):
            per_s = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}[kind.unit]
            counts = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
            first = counts[0] if len(counts) else 0
            start = column.cast(pa.timestamp("us", kind.tz), safe=False)[0].as_py() if len(column) else None
            table.times.append(Times(field.name, (counts - first).astype(np.float64), per_s, start))
            continue
        _add(table, field, _numbers(column, bool(column.null_count)))
    if left:
        table.warnings.append(f"skipped, not numbers: {', '.join(field.name for field in left)}")
    if not table.columns:
        raise ReadError(f"{where}: no column of numbers, expected one a lead. Save it so.")
    return table


def _add(table: Table, field: Any, column: Any) -> None:
    unit = (field.metadata or {}).get(b"unit", b"").decode(errors="replace")
    table.columns.append(column)
    table.names.append(f"{field.name} [{unit}]" if unit and unit not in field.name else field.name)


def _annotations(where: str, said: Any, record: Record) -> tuple[Annotation, ...]:
    """Return the annotations within the record; an end of null is open."""
    found = []
    for item in said if isinstance(said, list) else []:
        try:
            start_s, end_s = float(item["start_s"]), float("inf") if item["end_s"] is None else float(item["end_s"])
            lead, score = item.get("lead"), item.get("score")
            annotation = Annotation(
                start_s - record.start_s,
                end_s - record.start_s,
                str(item["kind"]),
                str(item["code"]),
                None if lead is None else str(lead),
                None if score is None else float(score),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ReadError(
                f"{where}: an annotation that is none ({error!r:.80}), expected all its parts. Save it."
            ) from error
        if annotation.end_s >= 0 and annotation.start_s < record.duration_s:
            found.append(annotation)
    return tuple(found)
