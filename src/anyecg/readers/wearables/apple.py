"""Apple Watch: the CSV files in the folder ``electrocardiograms`` of an Apple Health export.

    Name,...                                      a line may also be a key alone
    Date of Birth,"5 Feb 1952"
    Recorded Date,2020-02-05 09:14:40 -0400
    Classification,Sinus Rhythm
    Device,"Watch5,4"
    Sample Rate,512.844 hertz

    Lead,Lead I
    Unit,µV

    -48.673

Keys are in the phone's language, numbers with its decimal sign: lines are known by what their values look like. There
is no specification; the layout follows exports in English, German, Japanese and Chinese that public readers were
tested on. The name is not read.
"""

import re
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np

from anyecg.errors import ReadError
from anyecg.leads import KNOWN_LEADS, standard_name
from anyecg.readers.patient import age_at
from anyecg.readers.slices import sample_range
from anyecg.readers.tabular.tables import text_lines
from anyecg.readers.units import rate_of, unit_of
from anyecg.record import Record

NAME = "apple"

_RATE = re.compile(
    r"(\d+(?:[.,]\d+)?)\s*(?:hertz|hertzios|hz|赫兹|赫茲|ヘルツ|헤르츠|герц\w*|χερτζ|هرتز)", re.IGNORECASE
)
_UNIT = re.compile(r"[µμu]V|mV", re.IGNORECASE)
_RECORDED = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) ?([+-]\d{4})")
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)?(?:[eE][-+]?\d+)?")
_LEAD = re.compile(r"(?:^|[^A-Za-z])(I{1,3}|aV[RLF]|V[1-6])$")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def sniff(head: bytes, path: Path) -> bool:
    """Return whether text has a line with a rate in hertz and one with the recording's time, as Apple writes them."""
    if b"\x00" in head or head.lstrip().startswith((b"<", b"{")):
        return False
    lines = _decoded(head).splitlines()[:40]
    # few lines of any table hold a colon, as a time does
    dated = any(_RECORDED.fullmatch(_key_and_value(line)[1]) for line in lines if ":" in line)
    return dated and any(_RATE.fullmatch(_key_and_value(line)[1]) for line in lines)


def read(path: Path, start_s: float | None, end_s: float | None, fs: float | None, unit: str | None) -> Record:
    """Read a recording of one lead.

    Raises
    ------
    ReadError
        See `anyecg.readers.read`.
    """
    where, warnings = str(path), []  # type: tuple[str, list[str]]
    lines = [line.strip() for line in text_lines(path)]
    begin = next((i for i, line in enumerate(lines) if _NUMBER.fullmatch(line.strip('"'))), None)
    if begin is None:
        raise ReadError(f"{where}: no samples below the header, expected a line each. Export it again.")
    header = [_key_and_value(line) for line in lines[:begin]]
    rate_text = next((m[1] for _, value in header if (m := _RATE.fullmatch(value))), None)
    rate = rate_of(where, float(rate_text.replace(",", ".")) if rate_text else None, fs)
    stated = next((value for _, value in header if _UNIT.fullmatch(value)), None)
    factor = unit_of(where, stated, unit)
    values = _samples(where, lines, begin)
    first, last = sample_range(where, len(values), rate, start_s, end_s, warnings)
    recorded, born = _dates(header)
    return Record(
        signal=(values[first:last] * factor)[None],
        fs=rate,
        leads=(_lead(header, stated),),
        id=path.stem,
        format=NAME,
        age=age_at(born, recorded),
        start_time=recorded + timedelta(seconds=first / rate) if recorded else None,
        start_s=first / rate,
        warnings=tuple(warnings),
    )


def _decoded(head: bytes) -> str:
    return head.decode("utf-8-sig", errors="replace")


def _key_and_value(line: str) -> tuple[str, str]:
    key, _, value = line.partition(",")
    return key.strip(), value.strip().strip('"').replace("\u00a0", " ").replace("\u202f", " ").strip()


def _samples(where: str, lines: list[str], begin: int) -> np.ndarray:
    """Return the samples in the file's unit.

    Raises
    ------
    ReadError
        A line is no number, or both a comma and a point are decimal signs.
    """
    texts = [line.strip('"') for line in lines[begin:]]
    while texts and not texts[-1]:
        texts.pop()
    commas = sum("," in text for text in texts)
    if commas and any("." in text for text in texts):
        raise ReadError(f"{where}: points and commas in the numbers, expected one decimal sign. Export it again.")
    try:
        return np.array([float(text.replace(",", ".")) if text else np.nan for text in texts])
    except ValueError as error:
        raise ReadError(
            f"{where}: a line that is no number ({error}), expected one a sample. Export it again."
        ) from None


def _lead(header: list[tuple[str, str]], unit: str | None) -> str:
    """Return the lead: what the value above the unit ends in, in any language ("Ableitung I", "リードI")."""
    above = [value for i, (_, value) in enumerate(header[:-1]) if unit and header[i + 1][1] == unit]
    for value in [*above, *(value for _, value in header)]:
        match = _LEAD.search(value)
        if match and standard_name(match[1]) in KNOWN_LEADS:
            return standard_name(match[1])
    return "lead1"


def _dates(header: list[tuple[str, str]]) -> tuple[datetime | None, date | None]:
    """Return the time of the first sample and the day of birth, which stands in a line above it."""
    born = None
    for _, value in header:
        if match := _RECORDED.fullmatch(value):
            try:
                return datetime.fromisoformat(f"{match[1]}T{match[2]}{match[3]}"), born
            except ValueError:
                return None, born
        born = _birth(value) or born
    return None, None


def _birth(text: str) -> date | None:
    """Return a day that can be read in one way only; 02/03/1997 cannot.

    Examples
    --------
    >>> [str(_birth(text)) for text in ("Feb 5, 1952", "27.03.1987", "1990/01/31", "02/03/1997")]
    ['1952-02-05', '1987-03-27', '1990-01-31', 'None']
    """
    if match := re.fullmatch(r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})", text):
        year, month, day = (int(part) for part in match.groups())
    elif match := re.fullmatch(r"(\d{1,2})\.\s?(\d{1,2})\.\s?(\d{4})", text):
        day, month, year = (int(part) for part in match.groups())
    elif match := re.fullmatch(
        r"(?:(\d{1,2}) ([A-Za-z]{3})[a-z]*\.?|([A-Za-z]{3})[a-z]*\.? (\d{1,2}),?) (\d{4})", text
    ):
        name = (match[2] or match[3]).lower()
        if name not in _MONTHS:
            return None
        day, month, year = int(match[1] or match[4]), _MONTHS.index(name) + 1, int(match[5])
    else:
        return None
    try:
        return date(year, month, day)
    except ValueError:
        return None
