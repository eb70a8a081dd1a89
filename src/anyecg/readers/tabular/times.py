"""Columns of times: seconds, milliseconds or clock times -> the rate, and the rows that are missing."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np

from anyecg.errors import ReadError

SLOWEST_HZ, FASTEST_HZ = 10.0, 200_000.0
"""A time column that gives another rate counts in another unit than its name says."""

USUAL_HZ = (50.0, 2000.0)
"""Where the unit of a time column is not said, the one that gives such a rate is taken; at most one does."""

MOST_GAPS = 0.05
"""Of all steps; times with more jumps than this are not those of samples but of their arrival."""

TIME_UNITS_S = {
    **{"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3, "milliseconds": 1e-3},
    **{"us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9},
}
_NAME = re.compile(
    r"(?:(?:elapsed|sensor|phone|relative|sample|recording)[ _]?)?"
    r"(?:time|t|seconds?|elapsed|timestamp|time[ _]?stamp|datetime|clock|zeit|temps|tiempo|tempo)"
    r"(?:[ _\[(]+(?P<unit>s|sec|seconds?|ms|msec|milliseconds|us|µs|μs|ns)[\])]?)?|(?P<alone>ms)",
    re.IGNORECASE,
)
_CLOCK = re.compile(
    r"\[?\s*(?:(?P<date>\d{4}[-/]\d{1,2}[-/]\d{1,2}|\d{1,2}\.\d{1,2}\.\d{4})[T ]\s*)?"
    r"(?:(?P<h>\d{1,3}):)?(?P<m>\d{1,2}):(?P<s>\d{2}(?:[.,]\d{1,9})?)"
    r"(?P<zone>\s*(?:Z|UTC|[+-]\d{2}:?\d{2}))?(?:\s+\d{1,2}/\d{1,2}/\d{4})?\s*\]?"
)


@dataclass
class Times:
    """A column of times.

    Parameters
    ----------
    name : str
        As the file gives it.
    values : ndarray of float64
        In units of ``unit_s`` seconds, from whatever origin.
    unit_s : float or None
        None = the file does not say it.
    start : datetime or None
        The first one, if the file gives its date.
    """

    name: str
    values: np.ndarray
    unit_s: float | None
    start: datetime | None = None


def time_unit(name: str) -> tuple[bool, float | None]:
    """Return whether a column's name says that it holds times, and the seconds of their unit if it says that too.

    Examples
    --------
    >>> time_unit("sensor timestamp [ns]"), time_unit("time"), time_unit("V1")
    ((True, 1e-09), (True, None), (False, None))
    """
    match = _NAME.fullmatch(name.strip())
    if match is None:
        return False, None
    unit = match["unit"] or match["alone"]
    if unit is None and name.strip().lower() in ("second", "seconds"):
        unit = "s"
    return True, TIME_UNITS_S[unit.lower()] if unit else None


def is_clock(cell: str) -> bool:
    """Return whether a cell is a clock time, with or without a date.

    Examples
    --------
    >>> [is_clock(cell) for cell in ("0:00:00.004", "2021-05-16T08:08:46.123", "12", "[10:15:30.120]")]
    [True, True, False, True]
    """
    return ":" in cell and _CLOCK.fullmatch(cell) is not None


def clock_times(where: str, name: str, cells: list[str]) -> Times:
    """Return a column of clock times as seconds.

    Midnight is crossed at most once between two rows that carry no date.

    Raises
    ------
    ReadError
        A cell is no clock time.
    """
    seconds = np.empty(len(cells))
    start, days = None, 0
    first_day: int | None = None
    known: dict[str, int] = {}
    for i, cell in enumerate(cells):
        match = _CLOCK.fullmatch(cell)
        if match is None:
            raise ReadError(
                f"{where}: row {i + 1} of column {name!r} is {cell[:40]!r}, expected a clock time. Correct the file."
            )
        of_day = 3600 * int(match["h"] or 0) + 60 * int(match["m"]) + float(match["s"].replace(",", "."))
        if match["date"]:
            text = match["date"]
            if text not in known:
                known[text] = _ordinal(where, text)
            day = known[text]
            if first_day is None:
                first_day = day
                start = _start(day, of_day, match["zone"])
            days = day - first_day
        elif i and of_day + 86400 * days < seconds[i - 1] - 43200:
            days += 1
        seconds[i] = of_day + 86400 * days
    return Times(name, seconds, 1.0, start)


def _ordinal(where: str, text: str) -> int:
    parts = [int(part) for part in re.split(r"[-/.]", text)]
    try:
        return date(*(parts if "." not in text else reversed(parts))).toordinal()
    except ValueError as error:
        raise ReadError(f"{where}: a date of {text!r}, expected one of the calendar. Correct the file.") from error


def _start(day: int, of_day: float, zone: str | None) -> datetime:
    when = datetime.combine(date.fromordinal(day), datetime.min.time()) + timedelta(seconds=of_day)
    zone = (zone or "").strip()
    if not zone:
        return when
    if zone in ("Z", "UTC"):
        return when.replace(tzinfo=UTC)
    minutes = 60 * int(zone[1:3]) + int(zone[-2:])
    return when.replace(tzinfo=timezone(timedelta(minutes=minutes if zone[0] == "+" else -minutes)))


def rate_and_places(where: str, times: Times, warnings: list[str]) -> tuple[float, np.ndarray | None]:
    """Return the rate in Hz, and where each row belongs if rows between them are missing.

    Times may be rounded to less than half a step. A jump is a gap: the rows after it keep their time to within one
    sample.

    Parameters
    ----------
    where : str
        The source, for messages.
    times : Times
    warnings : list of str
        Gaps, and a unit that is not said, are reported here.

    Returns
    -------
    rate : float
        Hz.
    places : ndarray of int64 or None
        The sample number of each row; None = every row follows the one before.

    Raises
    ------
    ReadError
        The times do not grow, are not uniform, or give a rate that no ECG has.
    """
    seconds = times.values * (1.0 if times.unit_s is None else times.unit_s)
    if len(seconds) < 2 or not np.isfinite(seconds).all() or not seconds[-1] > seconds[0]:
        raise ReadError(f"{where}: column {times.name!r} does not grow, expected times. Leave it out and give --fs.")
    step = (seconds[-1] - seconds[0]) / (len(seconds) - 1)
    places = np.arange(len(seconds))
    off = np.abs(seconds - seconds[0] - step * places)
    gaps = 0
    if off.max() > 0.5 * step:
        step, places, gaps = _with_gaps(where, times.name, seconds)
        off = np.abs(seconds - seconds[0] - step * places)
    if times.unit_s is None and not USUAL_HZ[0] <= 1 / step <= USUAL_HZ[1]:
        step, off = _guess_unit(times.name, step, off, warnings)
    rate = 1.0 / step
    if not SLOWEST_HZ <= rate <= FASTEST_HZ:
        raise ReadError(
            f"{where}: column {times.name!r} steps by {step:.4g} s, expected a rate of {SLOWEST_HZ:g} to "
            f"{FASTEST_HZ:g} Hz. Name it time_ms if it counts milliseconds."
        )
    if gaps:
        missing = int(places[-1]) + 1 - len(places)
        warnings.append(f"{gaps} gaps between the times, {missing} samples in all, are taken as not recorded")
    # The ends may be rounded by as much as the worst time in between: a whole rate within that is meant.
    uncertain = 2 * off.max() / (step * places[-1]) + 1e-9
    if round(rate) and abs(rate / round(rate) - 1) <= uncertain:
        rate = float(round(rate))
    return float(rate), (places if gaps else None)


def _with_gaps(where: str, name: str, seconds: np.ndarray) -> tuple[float, np.ndarray, int]:
    """Return step in s, sample number of each row, and how many gaps there are.

    Raises
    ------
    ReadError
        Besides whole gaps the steps differ, too.
    """
    steps = np.diff(seconds)
    middle = float(np.median(steps))
    jumps = np.flatnonzero(steps > 1.5 * middle)
    if middle <= 0 or steps.min() < 0 or len(jumps) > max(1, MOST_GAPS * len(steps)) or len(jumps) == len(steps):
        _not_uniform(where, name, steps)
    step = float(np.delete(steps, jumps).mean())
    places = np.arange(len(seconds))
    for jump in jumps:  # rows after a jump go where their time says, so that the error does not add up
        place = round((seconds[jump + 1] - seconds[0]) / step)
        if place <= places[jump]:
            _not_uniform(where, name, steps)
        places[jump + 1 :] += place - places[jump + 1]
    if np.abs(seconds - seconds[0] - step * places).max() > step:
        _not_uniform(where, name, steps)
    return step, places, len(jumps)


def _not_uniform(where: str, name: str, steps: np.ndarray) -> None:
    raise ReadError(
        f"{where}: column {name!r} is not uniform (steps of {steps.min():.4g} to {steps.max():.4g}), expected one "
        "rate. Resample the table, or leave the column out and give --fs."
    )


def _guess_unit(name: str, step: float, off: np.ndarray, warnings: list[str]) -> tuple[float, np.ndarray]:
    """Return step and errors in seconds for times whose name does not say the unit, if one unit makes them an ECG's."""
    for unit, seconds in (("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)):
        if USUAL_HZ[0] <= 1 / (step * seconds) <= USUAL_HZ[1]:
            warnings.append(
                f"column {name!r} states no unit: taken as {unit}, which gives {1 / (step * seconds):.6g} Hz"
            )
            return step * seconds, off * seconds
    return step, off
