"""Tables of numbers as text: CSV, TSV, semicolons, blanks. Rate and unit are never guessed: file or caller says them.

What is understood of headers: a line of names, with units in brackets (``II [mV]``) or in a line below; lines of
``key: value`` for rate and unit; decimal commas; quoted cells; columns of times (see `anyecg.readers.tabular.times`).
Polar Sensor Logger, Movesense and ECG_Viewer write such tables.
"""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from anyecg.errors import ReadError
from anyecg.leads import KNOWN_LEADS, STANDARD_LEADS, standard_name
from anyecg.readers.channels import says_ecg
from anyecg.readers.tabular.columns import MAX_COLUMNS, Table, name_and_unit, read_table
from anyecg.readers.tabular.times import TIME_UNITS_S, Times, clock_times, is_clock
from anyecg.readers.units import mv_per
from anyecg.record import Record

NAME = "table"

OWN_FIRST_LINE = "# anyecg csv 1"
"""What our own CSV files start with; the number is the version."""

COMMENT_MARKS = ("#", "%", "//")

MAX_BYTES = 1_000_000_000
"""Text is parsed as a whole in memory; 12 leads of 24 hours at 250 Hz take about that much."""

MAX_PREAMBLE_LINES = 100
"""Numbers must begin after at most so many lines of text; a gap at the start does not count."""

HEAD_CHARS = (16_000, 100_000)
"""In which the first numbers are looked for before the whole text is cut into lines."""

THREADS_FROM = 8_000_000
"""Bytes from which on several threads are worth their start."""

MOST_LINES_ASKED = 101
"""From the first numbers on, to tell decimal commas from delimiters; the last line of the head may be cut."""

MAX_KEY_LINE = 300
"""Characters of a line of a key and a value."""

_DELIMITERS = ("\t", ";", ",", None)  # None: runs of blanks
_MISSING = re.compile(r"\s*(?:-{1,2}|nan|na|n/a|null|none)?\s*", re.IGNORECASE)
_MISSING_CELLS = [t for text in ("", "-", "--", "nan", "na", "n/a", "null", "none") for t in (text, text.upper())]
_MISSING_CELLS += ["NaN", "Na", "N/a", "Null", "None"]
"""The usual ones of what `_MISSING` allows."""

_NUMBER = re.compile(r"\s*[-+]?(?:\d+\.?\d*|\.\d+|inf(?:inity)?)(?:[eE][-+]?\d+)?\s*", re.IGNORECASE)
_KEY_AND_VALUE = re.compile(r"\W*(?P<key>[A-Za-z][A-Za-z _.-]*?)\s*[\[(]?(?:[Hh]z)?[\])]?\s*[:=,;\t]\s*(?P<value>.+)")
_RATE_KEYS = re.compile(r"fs|f_s|fs[ _]?hz|(?:sampl(?:e|ing)[ _.-]?)(?:rate|freq(?:uency)?)(?:[ _]hz)?|freq(?:uency)?")
_RATE = re.compile(
    r"[\"']?\s*(\d+(?:[.,]\d+)?)\s*(?:hz|hertz|samples?\s*(?:/|per)\s*s(?:ec(?:ond)?)?)?\W*", re.IGNORECASE
)
_ECG_VIEWER = re.compile(r"\s*Rhythm signal:\s*(\d+)\s*X\s*(\d+)\s*")


def sniff(head: bytes, path: Path) -> bool:
    """Return whether the file is text that is neither XML nor JSON nor a PDF."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        head = head.decode("utf-16", errors="ignore").encode()
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return not text.startswith((b"<", b"{", b"%PDF")) and not re.search(rb"[\x00-\x08\x0e-\x19\x1b-\x1f]", head)


def read(path: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None) -> Record:
    """Read a table of one column a lead.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    table, form = _read_text(path)
    return read_table(path, table, form, start_s, end_s, fs, unit)


def text_lines(path: Path) -> list[str]:
    """Return the lines of a text file, whatever its encoding; see `text_of`."""
    return text_of(path).splitlines()


def text_of(path: Path) -> str:
    """Return a text file, whatever its encoding.

    Raises
    ------
    ReadError
        It is too long to be read as a whole.
    """
    return _utf8_of(path).decode()


def _utf8_of(path: Path) -> bytes:
    """Return a text file as UTF-8, whatever its encoding; most are ASCII, and come as they are.

    Raises
    ------
    ReadError
        It is too long to be read as a whole.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ReadError(f"{path}: {size} bytes of text, expected at most {MAX_BYTES}. Convert it to WFDB or EDF.")
    data = path.read_bytes()
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    data = data.removeprefix(b"\xef\xbb\xbf")  # faster than the codec that does it
    if data.isascii():
        return data
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return data.decode("latin-1").encode()
    return data if encoding == "utf-8" else text.encode(errors="replace")


@dataclass(frozen=True)
class _Layout:
    """How a line of numbers is written: None as delimiter stands for runs of blanks."""

    delimiter: str | None
    comma: bool
    n_columns: int
    clocks: tuple[int, ...] = ()


def _read_text(path: Path) -> tuple[Table, str]:
    """Return the table in a text file, and the name of its format.

    Raises
    ------
    ReadError
        There are no numbers in it, or a line has other columns than the first one of numbers.
    """
    where = str(path)
    data = _utf8_of(path)
    head = _first_lines(data)
    own = bool(head) and head[0].startswith(OWN_FIRST_LINE[:-2])
    if own and head[0].strip() != OWN_FIRST_LINE:
        raise ReadError(f"{where}: {head[0].strip()[:40]!r}, expected {OWN_FIRST_LINE!r}. Use a newer anyecg.")
    lines = [line.rstrip("\r\n") for line in head]
    begin, layout = _first_numbers(where, lines)
    layout = _one_column_of_commas(where, lines, begin, layout)
    # Lines of nothing but missing cells before the first number are the gap a recording began with.
    while begin and lines[begin - 1].strip() and _is_gap(cells := lines[begin - 1].split(layout.delimiter)):
        if len(cells) != layout.n_columns:
            break
        begin -= 1
    preamble = lines[:begin]
    n_before = len("".join(head[:begin]).encode())
    body = memoryview(data)[n_before:]
    if any(data.find(mark[0].encode(), n_before) >= 0 for mark in COMMENT_MARKS):  # one character is found faster
        text = bytes(body).decode()
        body = memoryview("\n".join(one for one in text.splitlines() if not one.startswith(COMMENT_MARKS)).encode())
    names, units = _names(preamble, layout, own)
    columns, times = _columns(where, body, layout, begin, names)
    kept = [i for i in range(layout.n_columns) if i not in layout.clocks]
    names, units = [names[i] for i in kept], [units[i] for i in kept]
    if len(columns) > 1 and np.isnan(columns[-1]).all() and not names[-1]:
        columns, names, units = columns[:-1], names[:-1], units[:-1]  # every line ends in a delimiter
    if not any(names):
        names = _names_of_export(where, preamble, columns) or [f"lead{i + 1}" for i in range(len(columns))]
    named = [f"{name} [{u}]" if u else name for name, u in zip(names, units, strict=True)]
    table = Table(columns, named, _own_meta(preamble) if own else _stated(preamble), times)
    return table, _format(preamble, [*names, *(t.name for t in times)])


def _first_lines(data: bytes) -> list[str]:
    """Return the first lines of a text with their ends: as many as tell where its numbers begin, and what they are.

    Of the numbers below them a C parser makes columns.
    """
    for n_chars in HEAD_CHARS:
        if len(data) <= n_chars:
            break
        # A character that is cut is of the last line, and that is not looked at.
        head = data[:n_chars].decode(errors="replace").splitlines(keepends=True)
        if any(_layout(line) for line in head[:-MOST_LINES_ASKED]):
            return head
    return data.decode().splitlines(keepends=True)


def _first_numbers(where: str, lines: list[str]) -> tuple[int, _Layout]:
    """Return the index of the first line of numbers, and its layout."""
    n_text = 0
    for begin, line in enumerate(lines):
        if line.startswith(COMMENT_MARKS):
            continue
        if layout := _layout(line):
            return begin, layout
        n_text += not _is_gap(re.split(r"[,;\s]+", line))
        if n_text > MAX_PREAMBLE_LINES:
            break
    raise ReadError(f"{where}: no numbers in it, expected a table of samples. Choose another file.")


def _is_gap(cells: list[str]) -> bool:
    return all(_MISSING.fullmatch(cell.strip().strip("\"'")) for cell in cells)


def _cells(line: str, delimiter: str | None) -> list[str]:
    """Split a line; a delimiter in quotes does not count."""
    if delimiter is not None and '"' in line:
        row = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
        return [cell.strip().strip("\"'").strip() for cell in row]
    return [cell.strip().strip("\"'").strip() for cell in line.split(delimiter)]


def _layout(line: str) -> _Layout | None:
    """Return how a line of numbers is written, or None if it is something else."""
    if not line.strip() or len(line) > 40 * MAX_COLUMNS:
        return None
    for delimiter in _DELIMITERS:
        if delimiter is not None and delimiter not in line:
            continue
        cells = _cells(line, delimiter)
        for comma in (False, True):
            if comma and ("," not in line or (delimiter == "," and '"' not in line)):
                continue
            plain = [cell.replace(",", ".") if comma else cell for cell in cells]
            clocks = tuple(i for i, cell in enumerate(cells) if is_clock(cell))
            rest = [cell for i, cell in enumerate(plain) if i not in clocks]
            numbers = sum(bool(_NUMBER.fullmatch(cell)) for cell in rest)
            if numbers and all(_NUMBER.fullmatch(cell) or _MISSING.fullmatch(cell) for cell in rest):
                return _Layout(delimiter, comma, len(cells), clocks)
    return None


def _one_column_of_commas(where: str, lines: list[str], begin: int, layout: _Layout) -> _Layout:
    """Return the layout, put right where decimal commas were taken for delimiters.

    Raises
    ------
    ReadError
        There are twice as many cells as names: decimal commas cannot be told from delimiters.
    """
    text = [line for line in lines[:begin] if line.strip() and not line.startswith(COMMENT_MARKS)]
    if layout.delimiter != "," or layout.comma or not text:
        return layout
    names = [name_and_unit(cell) for cell in _cells(text[-1], ",")]
    if not any(says_ecg(name) or mv_per(unit or "") is not None for name, unit in names):
        return layout  # a title, not names
    n_names = len(names)
    if layout.n_columns == 2 and n_names == 1:
        if all(re.fullmatch(r"\s*[-+]?\d*,\d+\s*", line) for line in lines[begin : begin + 100] if line.strip()):
            return _Layout("\t", True, 1)
    if n_names > 1 and layout.n_columns == 2 * n_names:
        raise ReadError(
            f"{where}: {layout.n_columns} cells below {n_names} names: decimal commas and commas between cells cannot "
            "be told apart, expected semicolons or tabs between cells. Export it so."
        )
    return layout


def _columns(
    where: str, body: memoryview, layout: _Layout, n_before: int, names: list[str]
) -> tuple[list[np.ndarray], list[Times]]:
    """Return the columns of numbers, and those of clock times."""
    times: list[Times] = []
    if layout.clocks:
        rows = [_cells(line, layout.delimiter) for line in bytes(body).decode().splitlines() if line.strip()]
        for i, row in enumerate(rows):
            if len(row) != layout.n_columns:
                raise ReadError(
                    f"{where}: about line {n_before + i + 1} does not fit ({len(row)} cells, not {layout.n_columns}), "
                    "expected numbers in every column. Correct the file."
                )
        for at in layout.clocks:
            times.append(clock_times(where, names[at] or "time", [row[at] for row in rows]))
        kept = [i for i in range(layout.n_columns) if i not in layout.clocks]
        layout = _Layout(layout.delimiter or "\t", layout.comma, len(kept))
        lines = [(layout.delimiter or "\t").join(row[i] for i in kept) for row in rows]
        if len(kept) == 1:
            lines = [line or '""' for line in lines]
        body = memoryview("\n".join(lines).encode())
    fast = _fast_numbers(body, layout)
    return _numbers(where, bytes(body).decode(), layout, n_before) if fast is None else fast, times


def _fast_numbers(body: bytes | memoryview, layout: _Layout) -> list[np.ndarray] | None:
    """Return the columns of lines of numbers by pyarrow's parser, or None where it cannot tell.

    It takes a tenth of the time of NumPy's, but knows neither runs of blanks, nor single quotes:
    what it refuses is left to `_numbers`, which also says in which line the trouble is.
    """
    if layout.delimiter is None:
        return None
    # Arrow itself knows nan: only where a cell is '-' or 'NA' it is given all the spellings, and takes longer.
    found = _by_arrow(body, layout, [""])
    return _by_arrow(body, layout, _MISSING_CELLS) if found is None else found


def _by_arrow(body: bytes | memoryview, layout: _Layout, missing: list[str]) -> list[np.ndarray] | None:
    import pyarrow as pa
    import pyarrow.csv

    names = [str(i) for i in range(layout.n_columns)]
    threads = len(body) > THREADS_FROM
    # In one block, the columns come as they are needed, in one piece.
    one_block = {} if threads else {"block_size": len(body) + 1}
    try:
        table = pa.csv.read_csv(
            pa.py_buffer(body),
            read_options=pa.csv.ReadOptions(use_threads=threads, column_names=names, **one_block),
            parse_options=pa.csv.ParseOptions(delimiter=layout.delimiter),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.float64()),
                null_values=missing,
                decimal_point="," if layout.comma else ".",
            ),
        )
    except pa.ArrowInvalid:
        return None
    return [column.to_numpy() for column in table.columns]


def _numbers(where: str, body: str, layout: _Layout, n_before: int) -> list[np.ndarray]:
    """Return the columns of lines of numbers; cells that are empty, '-' or 'NA' are NaN."""
    delimiter = layout.delimiter
    body = "\n".join(body.splitlines())
    if layout.comma and delimiter == ",":
        body = re.sub(r'"\s*([-+]?\d*),(\d+(?:[eE][-+]?\d+)?)\s*"', r"\1.\2", body)
    elif layout.comma:
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
            # Possessive: a line of a hundred thousand blanks is not tried in every way.
            blank = r"[^\S\n\t]*+" if delimiter == "\t" else r"[^\S\n]*+"
            body = re.sub(rf"(?im)(^|{mark}){blank}{cell}?{blank}(?={mark}|$)", r"\1nan", body.rstrip("\n"))
            body = re.sub(r"(?m)^nan$\n?", "", body) if delimiter in body.split("\n", 1)[0] else body
        try:
            array = load(body)
        except ValueError as error:
            _refuse(where, error, n_before)
    assert array is not None
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


def _names(preamble: list[str], layout: _Layout, own: bool) -> tuple[list[str], list[str]]:
    """Return names and units from the last lines before the numbers; empty strings where there are none."""
    n_columns = layout.n_columns
    rows = [
        found
        for line in preamble
        if not line.startswith(COMMENT_MARKS) and len(found := _cells(line, layout.delimiter)) == n_columns
    ]
    if not rows and n_columns == 1:  # "II [mV]" or "Lead II" above a single column is one name, not two cells
        lines = [line.strip().strip("\"'") for line in preamble if line.strip() and not line.startswith(COMMENT_MARKS)]
        # Of another's file any other words may be a title, or a person's name.
        rows = [[line] for line in lines[-1:] if own or name_and_unit(line)[1] or standard_name(line) in KNOWN_LEADS]
    if not rows and n_columns > 1:  # numpy and gnuplot write the names as a comment
        bare = [re.sub(r"^(?:#|%|//)+\s*", "", line) for line in preamble if line.startswith(COMMENT_MARKS)]
        rows = [found for line in bare if len(found := _cells(line, layout.delimiter)) == n_columns][-1:]
    units = [""] * n_columns
    if len(rows) > 1 and all(not u or mv_per(u) or u.lower() in TIME_UNITS_S for u in rows[-1]) and any(rows[-1]):
        units = rows.pop()
    return (rows[-1] if rows else [""] * n_columns), units


def _names_of_export(where: str, preamble: list[str], columns: list[np.ndarray]) -> list[str] | None:
    """Return the leads of an ECG_Viewer export, which states its size and has the twelve leads in the usual order.

    Raises
    ------
    ReadError
        There are fewer lines than stated.
    """
    match = next((m for line in preamble if (m := _ECG_VIEWER.fullmatch(line))), None)
    if match is None or int(match[2]) != len(columns):
        return None
    if int(match[1]) != len(columns[0]):
        raise ReadError(
            f"{where}: {len(columns[0])} lines of numbers, expected the {match[1]} that it states. Export it again."
        )
    return list(STANDARD_LEADS) if len(columns) == len(STANDARD_LEADS) else None


def _own_meta(preamble: list[str]) -> dict[str, str]:
    """Return what the comment lines of our own CSV say."""
    meta = {}
    for line in preamble:
        key, _, value = line.lstrip("# ").partition(":")
        if line.startswith("#") and value.strip():
            meta[key.strip()] = value.strip()
    return meta


def _stated(preamble: list[str]) -> dict[str, str]:
    """Return rate, unit and start time from lines of a key and a value, with or without a comment mark."""
    meta: dict[str, str] = {}
    for line in preamble:
        if len(line) > MAX_KEY_LINE:
            continue
        if match := re.fullmatch(r"#\s*created\s+(\S+)", line):  # Movesense
            meta["start_time"] = match[1]
        match = _KEY_AND_VALUE.fullmatch(line.strip())
        if match is None:
            continue
        key = match["key"].strip().lower()
        value = match["value"].strip().strip("\"'").strip()
        if _RATE_KEYS.fullmatch(key) and (rate := _RATE.fullmatch(value)):
            meta["fs_hz"] = rate[1].replace(",", ".")
        elif key in ("unit", "units") and mv_per(value) is not None:
            meta["unit"] = value
    return meta


def _format(preamble: list[str], names: list[str]) -> str:
    """Return the name of the table's format: of the device that writes such a header, or csv."""
    if any("sensor timestamp" in name.lower() for name in names):
        return "polar"  # Polar Sensor Logger: Phone timestamp;sensor timestamp [ns];timestamp [ms];ecg [uV]
    if any("movesense" in line.lower() or line.startswith("# created ") for line in preamble):
        return "movesense"
    if any(_ECG_VIEWER.fullmatch(line) for line in preamble):
        return "ecgviewer"
    return "csv"
