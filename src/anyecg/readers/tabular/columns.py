"""Named columns of numbers -> Record: what CSV, Parquet, NPY, NPZ, MAT, HDF5 and JSON have in common."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.errors import ReadError
from anyecg.leads import standard_name
from anyecg.readers.audit import MOST_KEPT, rows_with_names
from anyecg.readers.channels import says_ecg, says_other
from anyecg.readers.patient import age_from_text, sex_from_text
from anyecg.readers.slices import VALUES_FREE, Extent, check_size, sample_range
from anyecg.readers.sources import split_inner
from anyecg.readers.tabular.times import Times, rate_and_places, time_unit
from anyecg.readers.units import mv_per, rate_of, unit_of
from anyecg.record import Record

MAX_COLUMNS = 4096

BLOCK_VALUES = 400_000
"""Of an array that holds all leads, so many are converted at a time."""

MAX_NAME = 300
"""Characters of a name in which a unit is looked for."""

LOWEST_INT16 = -32768
"""In 16-bit samples "not recorded", in WFDB (signal-5, format 16) as in most devices; no amplifier gives it."""

_COUNTER = re.compile(
    r"|#|n|nr|no|index|sample(?:[ _]?(?:#|no|nr|number|index))?|unnamed: 0|__index_level_0__", re.IGNORECASE
)
_NAME_AND_UNIT = re.compile(
    r"(?P<name>.*?)\s*(?:[\[(]\s*(?P<bracket>[^\])]+?)\s*[\])]|[ _/](?P<suffix>mV|uV|µV|μV|nV))\s*", re.IGNORECASE
)


@dataclass
class Table:
    """Columns with their names, and what the file says besides.

    Parameters
    ----------
    columns : list
        Of each lead anything with a length that gives numbers when sliced: an array, or a row of a file left unread.
    names : list of str
        As the file gives them; a unit in brackets is understood.
    meta : dict
        ``fs_hz``, ``unit``, ``age``, ``sex``, ``weight_kg``, ``start_time``, ``gain_known``, ``derived``, ``restored``.
    times : list of Times
        Of clock times; columns of numbers that are times are found by their names.
    """

    columns: list[Any]
    names: list[str]
    meta: dict[str, str] = field(default_factory=dict)
    times: list[Times] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_table(
    path: Path,
    table: Table,
    form: str,
    start_s: float | None,
    end_s: float | None,
    fs: float | None,
    unit: str | None,
    *,
    record_id: str | None = None,
) -> Record:
    """Return the record of a table, or a slice of it.

    Parameters
    ----------
    path : Path
        The source, for messages and for its size.
    table : Table
    form : str
        The record's ``format``.
    start_s, end_s, fs, unit
        See `anyecg.readers.read`.
    record_id : str, optional
        Instead of the file's stem.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    where, warnings = str(path), table.warnings
    if len(table.columns) > MAX_COLUMNS:
        raise ReadError(
            f"{where}: {len(table.columns)} columns, expected at most {MAX_COLUMNS}. One lead is one column, and one "
            "record a file."
        )
    stated, places = _rate(where, table, fs)
    rate = rate_of(where, stated, fs)
    columns, names, factors = _ecg_columns(where, table, unit)
    n_samples = len(columns[0]) if places is None else int(places[-1]) + 1
    first, last = sample_range(where, n_samples, rate, start_s, end_s, warnings)
    if (n_values := len(columns) * (last - first)) > VALUES_FREE:  # fewer are free, whatever the file's size
        check_size(where, n_values, split_inner(path)[0].stat().st_size)
    if places is None:
        signal, n_off = _in_mv(columns, factors, first, last)
    else:
        begin, end = np.searchsorted(places, [first, last])
        signal = np.full((len(columns), last - first), np.nan, dtype=np.float32)
        signal[:, places[begin:end] - first], n_off = _in_mv(columns, factors, int(begin), int(end))
    if n_off:
        warnings.append(f"{n_off} samples of {LOWEST_INT16} are taken as not recorded")
    leads = rows_with_names(names, warnings)
    return _record(table, signal, leads, rate, first, form, path.stem if record_id is None else record_id)


def extent_of(path: Path, table: Table, fs: float | None, unit: str | None) -> Extent | None:
    """Return how long the record of a table is, or None if its rows must be seen for it: where they have times.

    Parameters
    ----------
    path, table, fs, unit
        As for `read_table`.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    where = str(path)
    if table.times or any(time_unit(name)[0] or _COUNTER.fullmatch(name.strip()) for name in table.names):
        return None
    rate = rate_of(where, _rate(where, table, fs)[0], fs)
    columns, names, _ = _ecg_columns(where, table, unit)
    return Extent(len(columns[0]), rate, rows_with_names(names, []))


def _in_mv(columns: list[Any], factors: list[float], first: int, last: int) -> tuple[np.ndarray, int]:
    """Return rows ``first`` to ``last`` of columns as float32 mV, (n_leads, n), and how many marks became NaN."""
    n_off = 0
    together = _of_one_array(columns)
    if together and (signal := _as_it_is(columns, factors, first, last)) is not None:
        return signal, 0
    signal = np.empty((len(columns), last - first), dtype=np.float32)
    if not together:
        for to, column, factor in zip(signal, columns, factors, strict=True):
            n_off += _convert(np.asarray(column[first:last]), factor, to)
        return signal, n_off
    # Stretch by stretch, so that columns that lie between each other are fetched from memory, or from a file, once.
    n_block = max(1, BLOCK_VALUES // max(1, len(columns)))
    for begin in range(first, last, n_block):
        end = min(begin + n_block, last)
        block, to = Row.block(columns, begin, end), signal[:, begin - first : end - first]
        if len(set(factors)) == 1:
            n_off += _convert(block, factors[0], to)
        else:
            n_off += sum(_convert(*row) for row in zip(block, factors, to, strict=True))
    return signal, n_off


def _convert(values: np.ndarray, factor: float, to: np.ndarray) -> int:
    """Put values times a factor into an array of float32; return how many were marks and became NaN."""
    short = values.dtype.kind in "iu" and values.itemsize <= 2
    if factor == 1.0:
        to[...] = values
    elif short and factor in _PARTS:
        # float32 holds both exactly, so that the quotient is the nearest there is, as from 64 bits. First one lead
        # after the other in the cache: that is much faster.
        values = np.ascontiguousarray(values)
        np.divide(values, _PARTS[factor], out=to)
    else:  # in 64 bits: float32 would not hold the numbers of every file
        np.multiply(values, factor, out=to, casting="unsafe", dtype=np.float64)
    if values.dtype.kind == "i" and values.itemsize == 2 and values.size and values.min() == LOWEST_INT16:
        off = values == LOWEST_INT16
        to[off] = np.nan
        return int(np.count_nonzero(off))
    return 0


_PARTS = {1e-3: np.float32(1e3), 1e-6: np.float32(1e6)}
"""mV of one uV and of one nV, and what is divided by instead."""


def _as_it_is(rows: "list[Row]", factors: list[float], first: int, last: int) -> np.ndarray | None:
    """Return the array of all leads if it already is what a record wants, else None: nothing is copied.

    It is in memory, or it lies in an HDF5 file and is read in one go.
    """
    array = rows[0].array
    if rows[0].by_column or array.dtype != np.float32 or set(factors) != {1.0}:
        return None
    if len(array.shape) != 2 or [row.index for row in rows] != list(range(array.shape[0])):
        return None
    if not isinstance(array, np.ndarray):
        return np.asarray(array[()] if (first, last) == (0, len(rows[0])) else array[:, first:last])
    return array if array.flags.carray and (first, last) == (0, len(rows[0])) else None


def _of_one_array(columns: list[Any]) -> bool:
    """Return whether all columns are rows of the same array: then they are of one length, and read together."""
    array = getattr(columns[0], "array", None)
    return array is not None and all([isinstance(column, Row) and column.array is array for column in columns])


def name_and_unit(text: str) -> tuple[str, str | None]:
    """Split ``"II [mV]"``, ``"II_uV"`` or ``"ABP (mmHg)"``.

    Examples
    --------
    >>> name_and_unit("II (mV)"), name_and_unit("V1")
    (('II', 'mV'), ('V1', None))
    """
    match = _NAME_AND_UNIT.fullmatch(text.strip()) if len(text) <= MAX_NAME else None
    if match is None or not match["name"]:
        return text.strip(), None
    stated = match["bracket"] or match["suffix"]
    if match["bracket"] and mv_per(stated) is None and standard_name(match["name"]) == match["name"]:
        return text.strip(), None  # "ECG (left)": the bracket belongs to the name
    return match["name"], stated


def _ecg_columns(where: str, table: Table, unit: str | None) -> tuple[list[Any], list[str], list[float]]:
    """Return the columns that are ECG leads, their names, and the mV of one unit of each."""
    stated_for_all = table.meta.get("unit") or None
    n_characters = sum(map(len, table.names)) + len(stated_for_all or "")
    sort_out = _ecg_among if n_characters <= MOST_KEPT else _ecg_among.__wrapped__
    places, names, stated, skipped = sort_out(tuple(table.names), stated_for_all)
    columns = [table.columns[i] for i in places]
    mv = {one: unit_of(where, one, unit) for one in dict.fromkeys(stated)}
    factors = [mv[one] for one in stated]
    if skipped:
        table.warnings.append(f"skipped, not an ECG: {', '.join(skipped)}")
    if not columns:
        raise ReadError(f"{where}: no ECG column among {', '.join(skipped) or 'none'}, expected one. Check the file.")
    if not _of_one_array(columns) and len(lengths := set(map(len, columns))) > 1:
        raise ReadError(f"{where}: leads of {sorted(lengths)[:5]} samples, expected one length. Correct the file.")
    return columns, list(names), factors


@lru_cache(maxsize=64)  # a program names the columns of all its files alike
def _ecg_among(
    raw_names: tuple[str, ...], unit: str | None
) -> tuple[tuple[int, ...], tuple[str, ...], tuple[str | None, ...], tuple[str, ...]]:
    """Return places, names and units of the columns that are ECG leads, and the names of the others."""
    chosen, others = [], []
    for i, raw in enumerate(raw_names):
        name, stated = name_and_unit(raw)
        stated = stated or unit
        if _is_other(name, stated):
            others.append(name)
        else:
            chosen.append((i, name, stated))
    places, names, units = zip(*chosen, strict=True) if chosen else ((), (), ())
    return places, names, units, tuple(others)


def _is_other(name: str, stated: str | None) -> bool:
    """Return whether a column of this name and unit is something else than an ECG lead."""
    return says_other(name) or bool(stated and mv_per(stated) is None and not says_ecg(name))


def _rate(where: str, table: Table, given: float | None) -> tuple[float | None, np.ndarray | None]:
    """Remove columns of times or of sample numbers; return the rate in Hz that the file states, and the rows' places.

    Raises
    ------
    ReadError
        The times are not uniform and the caller gives no rate, or what should be a rate is no number.
    """
    stated = None
    if text := table.meta.get("fs_hz"):
        try:
            stated = float(text)
        except ValueError:
            raise ReadError(f"{where}: a rate of {text!r}, expected a number of Hz. Correct the line.") from None
    times = _take_times(table)
    if stated is not None and not (isfinite(stated) and stated > 0):
        return stated, None  # refused by `rate_of`
    errors: list[ReadError] = []
    for candidate in times:
        try:
            rate, places = rate_and_places(where, candidate, table.warnings)
        except ReadError as error:
            errors.append(error)
            continue
        if stated is not None and abs(rate / stated - 1) > 0.005:
            table.warnings.append(f"the header says {stated:g} Hz, the times say {rate:g} Hz: the times were used")
        if candidate.start is not None:
            table.meta.setdefault("start_time", candidate.start.isoformat())
        return (stated if stated and places is None and abs(rate / stated - 1) <= 0.005 else rate), places
    if errors and stated is None and given is None:
        raise errors[0]
    if errors:
        table.warnings.append(f"column {times[0].name!r} was left out: its times are not those of a uniform rate")
    return stated, None


def _take_times(table: Table) -> list[Times]:
    """Remove the columns that count samples or give times; return the times, the most trustworthy first."""
    if len(table.columns) > 1 and _COUNTER.fullmatch(table.names[0].strip()):
        column = np.asarray(table.columns[0][:])
        if len(column) > 1 and column.dtype.kind in "iuf" and bool((np.diff(column) == 1).all()):
            table.columns, table.names = table.columns[1:], table.names[1:]
            table.warnings.append("the first column counts the samples and was left out")
    found: list[Times] = []
    find = _times_among if sum(map(len, table.names)) <= MOST_KEPT else _times_among.__wrapped__
    for i, unit_s in reversed(find(tuple(table.names))):
        if len(table.columns) > 1:
            found.append(Times(table.names.pop(i), np.asarray(table.columns.pop(i)[:], np.float64), unit_s))
    found += table.times
    # A phone stamps the arrival of a packet, not the sample: its times come last.
    return sorted(found, key=lambda times: ("phone" in times.name.lower(), times.unit_s is None))


@lru_cache(maxsize=64)
def _times_among(names: tuple[str, ...]) -> list[tuple[int, float | None]]:
    """Return place and unit of each column that holds times by its name."""
    found = [(i, *time_unit(name)) for i, name in enumerate(names)]
    return [(i, unit_s) for i, is_time, unit_s in found if is_time]


def _record(
    table: Table, signal: np.ndarray, leads: tuple[str, ...], rate: float, first: int, form: str, record_id: str
) -> Record:
    """Return the record with what the table's meta lines say about it."""
    said = _said(table, leads, first / rate) if table.meta.keys() - _OF_SAMPLES else {}
    return Record(
        signal=signal,
        fs=rate,
        leads=leads,
        id=record_id,
        format=form,
        start_s=first / rate,
        warnings=tuple(table.warnings),
        **said,
    )


_OF_SAMPLES = {"fs_hz", "unit"}
"""Meta lines that say nothing of the record but how its samples are read."""


def _said(table: Table, leads: tuple[str, ...], start_s: float) -> dict[str, Any]:
    """Return what the meta lines say about the record, which starts so many seconds after its source."""
    meta = table.meta

    def listed(key: str) -> frozenset[str]:
        return frozenset(name for name in meta.get(key, "").split(", ") if name in leads)

    weight = meta.get("weight_kg", "")
    time = time_of(meta.get("start_time", ""), table.warnings)
    return {
        "age": age_from_text(meta.get("age", "")),
        "sex": sex_from_text(meta.get("sex")),
        "weight_kg": float(weight) if re.fullmatch(r"\d+(\.\d+)?", weight) else None,
        "start_time": time + timedelta(seconds=start_s) if time else None,
        "gain_known": meta.get("gain_known", "yes").lower() not in ("no", "false"),
        "derived": listed("derived"),
        "restored": listed("restored"),
    }


def time_of(text: str, warnings: list[str]) -> datetime | None:
    """Return an ISO 8601 time, or None with a warning if there is something else."""
    if not text.strip():
        return None
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        warnings.append(f"start_time {text[:40]!r} is not a time and was left out")
        return None


def rows_of(where: str, array: Any, names: Sequence[str] | None = None) -> list[Any]:
    """Return the leads of an array of one or two axes, unread if the array is: the longer axis is time.

    Parameters
    ----------
    where : str
        The source, for messages.
    array : ndarray, or anything with ``shape``, ``dtype`` and slices, such as an HDF5 dataset
    names : sequence of str, optional
        The leads' names: where their number fits one axis alone, that axis is the leads.

    Raises
    ------
    ReadError
        The array is empty, not of real numbers, of more axes, or square.
    """
    shape = tuple(n for n in array.shape if n != 1) if len(array.shape) > 2 else tuple(array.shape)
    if array.dtype.kind not in "iuf" or len(shape) not in (1, 2) or 0 in array.shape:
        raise ReadError(
            f"{where}: an array of {array.dtype} and shape {array.shape}, expected real numbers of shape "
            "(n_leads, n_samples). Save it so."
        )
    if len(array.shape) > 2:
        array = np.asarray(array[:]).reshape(shape)
    if len(shape) == 1:
        return [array]
    if names and (shape[0] == len(names)) != (shape[1] == len(names)):
        by_column = shape[1] == len(names)
    elif shape[0] == shape[1] and shape[0] > 1:
        raise ReadError(f"{where}: a square array {shape}, expected a longer axis for time. Save it as CSV.")
    else:
        by_column = shape[0] > shape[1]
    n_samples, n_leads = shape if by_column else reversed(shape)
    if n_leads > MAX_COLUMNS:
        raise ReadError(f"{where}: {n_leads} leads, expected at most {MAX_COLUMNS}. Save one record a file.")
    return [Row(array, i, by_column, n_samples) for i in range(n_leads)]


@lru_cache(maxsize=64)
def numbered(n_leads: int) -> tuple[str, ...]:
    """Return names for leads whose file gives them none.

    Examples
    --------
    >>> numbered(2)
    ('lead1', 'lead2')
    """
    return tuple(f"lead{i + 1}" for i in range(n_leads))


class Row:
    """One lead of a two-dimensional array that stays where it is, in memory or in a file."""

    __slots__ = ("array", "by_column", "index", "n_samples")

    def __init__(self, array: Any, index: int, by_column: bool, n_samples: int) -> None:
        self.array, self.index, self.by_column, self.n_samples = array, index, by_column, n_samples

    @staticmethod
    def block(rows: "list[Row]", begin: int, end: int) -> np.ndarray:
        """Return a stretch of leads of one array, (n_leads, n), which is read once."""
        array, by_column = rows[0].array, rows[0].by_column
        whole = np.asarray(array[begin:end]).T if by_column else np.asarray(array[:, begin:end])
        order = [row.index for row in rows]
        return whole if order == list(range(len(whole))) else whole[order]

    def __len__(self) -> int:
        return self.n_samples

    def __getitem__(self, part: slice) -> np.ndarray:
        at = (part, self.index) if self.by_column else (self.index, part)
        return np.asarray(self.array[at])
