"""Tables of numbers: CSV, TSV, semicolons, blanks, NPY. Rate and unit are never guessed: file or caller says them."""

import io
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import NoReturn

import numpy as np

from anyecg.errors import ReadError
from anyecg.leads import standard_name
from anyecg.readers.audit import rows_with_names
from anyecg.readers.channels import says_ecg, says_other
from anyecg.readers.patient import age_from_text, sex_from_text
from anyecg.readers.slices import sample_range
from anyecg.readers.units import mv_per, rate_of, unit_of
from anyecg.record import Record

NAME = "table"

OWN_FIRST_LINE = "# anyecg csv 1"
"""What our own CSV files start with; the number is the version."""

NPY_MAGIC = b"\x93NUMPY"

MAX_PREAMBLE_LINES = 100
"""Numbers must begin after at most so many lines of text; a gap at the start does not count."""

MAX_COLUMNS = 4096

SLOWEST_HZ, FASTEST_HZ = 10.0, 200_000.0
"""A time column that gives another rate counts in another unit than its name says."""

_DELIMITERS = ("\t", ";", ",", None)  # None: runs of blanks
_MISSING = re.compile(r"\s*(?:-{1,2}|nan|na|n/a|null|none)?\s*", re.IGNORECASE)
_NUMBER = re.compile(r"\s*[-+]?(?:\d+\.?\d*|\.\d+|inf(?:inity)?)(?:[eE][-+]?\d+)?\s*", re.IGNORECASE)
_TIME = re.compile(
    r"(?:elapsed[ _]?)?(?:time|t|seconds?|timestamp|zeit|temps)(?:[ _\[(]+(s|sec|seconds|ms|us)[\])]?)?|(ms)", re.I
)
_TIME_S = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6}
_COUNTER = re.compile(r"|#|n|nr|no|index|sample(?:[ _]?(?:#|no|nr|number|index))?|unnamed: 0", re.IGNORECASE)
_NAME_AND_UNIT = re.compile(
    r"(?P<name>.*?)\s*(?:[\[(]\s*(?P<bracket>[^\])]+?)\s*[\])]|[ _/](?P<suffix>mV|uV|µV|μV|nV))\s*", re.IGNORECASE
)


def sniff(head: bytes, path: Path) -> bool:
    """Return whether the file is NPY, or text that is neither XML nor JSON."""
    if head.startswith(NPY_MAGIC):
        return True
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        head = head.decode("utf-16", errors="ignore").encode()
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return not re.search(rb"[\x00-\x08\x0e-\x19\x1b-\x1f]", head) and not text.startswith((b"<", b"{"))


def read(path: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None) -> Record:
    """Read a table of one column a lead, or an NPY array whose longer axis is time.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    with path.open("rb") as file:
        is_npy = file.read(len(NPY_MAGIC)) == NPY_MAGIC
    table = _read_npy(path) if is_npy else _read_text(path)
    where = str(path)
    warnings = table.warnings
    stated_fs = table.meta.get("fs_hz")
    try:
        rate = rate_of(where, _take_time(where, table) if stated_fs is None else float(stated_fs), fs)
    except ValueError:
        raise ReadError(f"{where}: a rate of {stated_fs!r}, expected a number of Hz. Correct the line.") from None
    rows, names = [], []
    skipped = []
    for column, name in zip(table.columns, table.names, strict=True):
        name, stated = _name_and_unit(name)
        stated = stated or table.meta.get("unit")
        if says_other(name) or (stated and mv_per(stated) is None and not says_ecg(name)):
            skipped.append(name)
            continue
        rows.append((column, unit_of(where, stated, unit)))
        names.append(name)
    if skipped:
        warnings.append(f"skipped, not an ECG: {', '.join(skipped)}")
    if not rows:
        raise ReadError(f"{where}: no ECG column among {', '.join(skipped) or 'none'}, expected one. Check the file.")
    first, last = sample_range(where, len(rows[0][0]), rate, start_s, end_s, warnings)
    signal = np.stack([np.asarray(column[first:last] * factor, dtype=np.float32) for column, factor in rows])
    leads = rows_with_names(where, names, warnings)
    return _with_meta(path, table.meta, signal, leads, rate, first, warnings)


@dataclass
class _Table:
    """Columns of float64 with their names, and what comment lines say."""

    columns: list[np.ndarray]
    names: list[str]
    meta: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def _with_meta(
    path: Path,
    meta: dict[str, str],
    signal: np.ndarray,
    leads: tuple[str, ...],
    rate: float,
    first: int,
    warnings: list[str],
) -> Record:
    """Return the record of a table with what our own comment lines say about it."""

    def listed(key: str) -> frozenset[str]:
        return frozenset(name for name in meta.get(key, "").split(", ") if name in leads)

    try:
        time = datetime.fromisoformat(meta["start_time"]) if meta.get("start_time") else None
    except ValueError:
        time = None
        warnings.append(f"start_time {meta['start_time'][:40]!r} is not a time and was left out")
    weight = meta.get("weight_kg", "")
    return Record(
        signal=signal,
        fs=rate,
        leads=leads,
        id=path.stem,
        format="npy" if path.suffix == ".npy" else "csv",
        age=age_from_text(meta.get("age", "")),
        sex=sex_from_text(meta.get("sex")),
        weight_kg=float(weight) if _NUMBER.fullmatch(weight) else None,
        start_time=time + timedelta(seconds=first / rate) if time else None,
        start_s=first / rate,
        gain_known=meta.get("gain_known", "yes") != "no",
        derived=listed("derived"),
        restored=listed("restored"),
        warnings=tuple(warnings),
    )


def _read_npy(path: Path) -> _Table:
    """Return an array's rows along its longer axis, mapped, so that a file that is too short is refused unread."""
    where = str(path)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ReadError(f"{where}: not a whole NPY array ({error}), expected numbers. Save it again.") from error
    if array.dtype.kind not in "iuf" or array.ndim not in (1, 2) or 0 in array.shape:
        raise ReadError(
            f"{where}: an array of {array.dtype} and shape {array.shape}, expected real numbers of shape "
            "(n_leads, n_samples). Save it so."
        )
    array = np.atleast_2d(array)
    if array.shape[0] == array.shape[1] and array.shape[0] > 1:
        raise ReadError(f"{where}: a square array {array.shape}, expected a longer axis for time. Save it as CSV.")
    if array.shape[0] > array.shape[1]:
        array = array.T
    if array.shape[0] > MAX_COLUMNS:
        raise ReadError(f"{where}: {array.shape[0]} leads, expected at most {MAX_COLUMNS}. Save one record a file.")
    return _Table([np.asarray(row, np.float64) for row in array], [f"lead{i + 1}" for i in range(len(array))])


def _read_text(path: Path) -> _Table:
    """Return the table in a text file.

    Raises
    ------
    ReadError
        There are no numbers in it, or a line has other columns than the first one of numbers.
    """
    where = str(path)
    data = path.read_bytes()
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    lines = text.splitlines()
    del data, text
    own = bool(lines) and lines[0].startswith(OWN_FIRST_LINE[:-2])
    if own and lines[0].strip() != OWN_FIRST_LINE:
        raise ReadError(f"{where}: {lines[0][:40]!r}, expected {OWN_FIRST_LINE!r}. Use a newer anyecg.")
    meta: dict[str, str] = {}
    layout, n_text = None, 0
    for begin, line in enumerate(lines):  # noqa: B007
        if line.startswith("#"):
            key, _, value = line.lstrip("# ").partition(":")
            if own and value.strip():
                meta[key.strip()] = value.strip()
        elif layout := _layout(line):
            break
        else:
            n_text += not _is_gap(re.split(r"[,;\s]+", line))
            if n_text > MAX_PREAMBLE_LINES:
                break
    if layout is None:
        raise ReadError(f"{where}: no numbers in it, expected a table of samples. Choose another file.")
    delimiter, comma, n_columns = layout
    # Lines of nothing but missing cells before the first number are the gap a recording began with.
    while begin and lines[begin - 1].strip() and _is_gap(cells := lines[begin - 1].split(delimiter)):
        if len(cells) != n_columns:
            break
        begin -= 1
    columns = _numbers(where, lines[begin:], delimiter, comma, begin)
    names, units = _names(lines[:begin], delimiter, n_columns)
    if n_columns > 1 and np.isnan(columns[-1]).all() and not names[-1]:
        columns, names, units = columns[:-1], names[:-1], units[:-1]  # every line ends in a delimiter
    named = any(names)
    table = _Table(columns, [f"{name} [{u}]" if u else name for name, u in zip(names, units, strict=True)], meta)
    if not named:
        table.names = [f"lead{i + 1}" for i in range(len(columns))]
    return table


def _is_gap(cells: list[str]) -> bool:
    return all(_MISSING.fullmatch(cell.strip().strip("\"'")) for cell in cells)


def _layout(line: str) -> tuple[str | None, bool, int] | None:
    """Return delimiter, whether the decimal sign is a comma, and the number of cells of a line of numbers, or None."""
    if not line.strip() or len(line) > 40 * MAX_COLUMNS:
        return None
    for delimiter in _DELIMITERS:
        if delimiter is not None and delimiter not in line:
            continue
        cells = line.split(delimiter)
        for comma in (False, True):
            if comma and (delimiter == "," or "," not in line):
                continue
            plain = [
                cell.strip().strip("\"'").replace(",", ".") if comma else cell.strip().strip("\"'") for cell in cells
            ]
            numbers = sum(bool(_NUMBER.fullmatch(cell)) for cell in plain)
            if numbers and all(_NUMBER.fullmatch(cell) or _MISSING.fullmatch(cell) for cell in plain):
                return delimiter, comma, len(cells)
    return None


def _numbers(where: str, lines: list[str], delimiter: str | None, comma: bool, n_before: int) -> list[np.ndarray]:
    """Return the columns of lines of numbers; cells that are empty, '-' or 'NA' are NaN."""
    body = "\n".join(lines)
    if comma:
        body = body.replace(",", ".")
    body = re.sub(r'(?m)^""$', "nan", body)  # pandas: a missing value in a table of one column
    body = body.replace('"', "").replace("'", "")

    def load(text: str) -> np.ndarray:
        return np.loadtxt(io.StringIO(text), delimiter=delimiter, comments=None, ndmin=2, dtype=np.float64)

    try:
        array = load(body)
    except ValueError:
        array = None
    if array is None:
        # Only now the slower way: write 'nan' into the cells that hold nothing.
        cell = r"(?:-{1,2}|na|n/a|null|none)"
        if delimiter is None:
            body = re.sub(rf"(?im)(?<!\S){cell}(?!\S)", "nan", body)
        else:
            mark = re.escape(delimiter)
            blank = r"[^\S\n\t]*" if delimiter == "\t" else r"[^\S\n]*"
            body = re.sub(rf"(?im)(^|{mark}){blank}{cell}?{blank}(?={mark}|$)", r"\1nan", body.rstrip("\n"))
            body = re.sub(r"(?m)^nan$\n?", "", body) if delimiter in body.split("\n", 1)[0] else body
        try:
            array = load(body)
        except ValueError as error:
            _refuse(where, error, n_before)
    assert array is not None
    if array.shape[1] > MAX_COLUMNS:
        raise ReadError(f"{where}: {array.shape[1]} columns, expected at most {MAX_COLUMNS}. One lead is one column.")
    return list(np.ascontiguousarray(array.T))


def _refuse(where: str, error: ValueError, n_before: int) -> NoReturn:
    """Raise for a line that does not fit, by its number in the file."""
    text = str(error).splitlines()[0]
    match = re.search(r"\brow (\d+)", text)
    # numpy counts rows from 1 where the number of columns changes, else from 0, and blank lines not at all.
    from_zero = not text.startswith("the number of columns")
    line = f"about line {n_before + int(match[1]) + from_zero}" if match else "a line"
    raise ReadError(
        f"{where}: {line} does not fit ({text.split(';')[0]}), expected numbers in every column. Correct the file."
    ) from error


def _names(preamble: list[str], delimiter: str | None, n_columns: int) -> tuple[list[str], list[str]]:
    """Return names and units from the last lines before the numbers; empty strings where there are none."""

    def cells(line: str) -> list[str]:
        return [cell.strip().strip("\"'").strip() for cell in line.split(delimiter)]

    rows = [found for line in preamble if not line.startswith("#") and len(found := cells(line)) == n_columns]
    units = [""] * n_columns
    if rows and len(rows) > 1 and all(not u or mv_per(u) or u.lower() in _TIME_S for u in rows[-1]) and any(rows[-1]):
        units = rows.pop()
    return (rows[-1] if rows else [""] * n_columns), units


def _name_and_unit(text: str) -> tuple[str, str | None]:
    """Split ``"II [mV]"``, ``"II_uV"`` or ``"ABP (mmHg)"``.

    Examples
    --------
    >>> _name_and_unit("II (mV)"), _name_and_unit("V1")
    (('II', 'mV'), ('V1', None))
    """
    match = _NAME_AND_UNIT.fullmatch(text.strip())
    if match is None or not match["name"]:
        return text.strip(), None
    stated = match["bracket"] or match["suffix"]
    if match["bracket"] and mv_per(stated) is None and standard_name(match["name"]) == match["name"]:
        return text.strip(), None  # "ECG (left)": the bracket belongs to the name
    return match["name"], stated


def _take_time(where: str, table: _Table) -> float | None:
    """Remove a column of times or of sample numbers; return the rate in Hz that times give, or None.

    Raises
    ------
    ReadError
        The times are not uniform, or give a rate that no ECG has.
    """
    if len(table.columns) > 1:
        name = table.names[0]
        column = table.columns[0]
        counts = len(column) > 1 and bool((np.diff(column) == 1).all())
        if counts and _COUNTER.fullmatch(name):
            table.columns, table.names = table.columns[1:], table.names[1:]
            table.warnings.append("the first column counts the samples and was left out")
    for i, name in enumerate(table.names):
        match = _TIME.fullmatch(name.strip())
        if match is None or len(table.columns) == 1:
            continue
        times = table.columns.pop(i) * _TIME_S[(match[1] or match[2] or "s").lower()]
        table.names.pop(i)
        return _rate_from_times(where, name, times)
    return None


def _rate_from_times(where: str, name: str, times: np.ndarray) -> float:
    """Return the rate of uniform times in seconds; times may be rounded to less than half a step."""
    step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else np.nan
    if not (np.isfinite(step) and step > 0):
        raise ReadError(f"{where}: column {name!r} does not grow, expected times. Leave it out and give --fs.")
    off = np.abs(times - times[0] - step * np.arange(len(times)))
    if not np.isfinite(times).all() or off.max() > 0.5 * step:
        raise ReadError(
            f"{where}: column {name!r} is not uniform (off by {np.nanmax(off):.4g} s at a step of {step:.4g} s), "
            "expected one rate. Resample the table, or leave the column out and give --fs."
        )
    rate = 1.0 / step
    if not SLOWEST_HZ <= rate <= FASTEST_HZ:
        raise ReadError(
            f"{where}: column {name!r} steps by {step:.4g} s, expected a rate of {SLOWEST_HZ:g} to {FASTEST_HZ:g} Hz. "
            "Name it time_ms if it counts milliseconds."
        )
    # The ends may be rounded by as much as the worst time in between: a whole rate within that is meant.
    uncertain = 2 * off.max() / (times[-1] - times[0]) + 1e-9
    return float(round(rate)) if abs(rate / round(rate) - 1) <= uncertain else float(rate)
