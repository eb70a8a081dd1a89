"""Voltage units, and what a caller may say about a file that does not say it itself."""

from math import isclose, isfinite

from anyecg.errors import ReadError

MV_PER = {"mv": 1.0, "uv": 1e-3, "v": 1e3, "nv": 1e-6}
"""Millivolts in one unit; keys in lower case ('mv' in some PTB headers is meant as mV: no device writes megavolts)."""

UNITS = ("mV", "uV", "V", "nV")
"""The units a caller may name."""

_LONG_NAMES = {"millivolt": "mv", "microvolt": "uv", "volt": "v", "nanovolt": "nv"}


def mv_per(unit: str) -> float | None:
    """Return how many mV one unit is, or None if it is not a voltage.

    Examples
    --------
    >>> mv_per("µV"), mv_per("mv"), mv_per("mmHg")
    (0.001, 1.0, None)
    """
    key = unit.strip().replace("µ", "u").replace("μ", "u").lower()
    key = _LONG_NAMES.get(key.removesuffix("s"), key)
    return MV_PER.get(key)


def check_arguments(fs: float | None, unit: str | None) -> None:
    """Refuse a rate or a unit that no file could have.

    Raises
    ------
    ValueError
        It lists what is allowed.
    """
    if fs is not None and not (isfinite(fs) and fs > 0):
        raise ValueError(f"fs is {fs}, allowed is a positive number of Hz")
    if unit is not None and mv_per(unit) is None:
        raise ValueError(f"unit is {unit!r}, allowed are {', '.join(UNITS)}")


def rate_of(where: str, stated: float | None, given: float | None) -> float:
    """Return the rate in Hz: what the file states, or else what the caller gives. Never a default.

    Raises
    ------
    ReadError
        Neither says it, both do and differ, or the file's is no rate.
    """
    if stated is None:
        if given is None:
            raise ReadError(f"{where}: no sampling rate in the file, expected one. Give it with --fs (fs=).")
        return given
    if not (isfinite(stated) and stated > 0):
        raise ReadError(f"{where}: the sampling rate is {stated} Hz, expected a positive number. The file is damaged.")
    if given is not None and not isclose(stated, given, rel_tol=1e-4):
        raise ReadError(
            f"{where}: the file says {stated:g} Hz, but --fs (fs=) says {given:g} Hz. Leave it out: the file knows."
        )
    return stated


def unit_of(where: str, stated: str | None, given: str | None) -> float:
    """Return the mV of one unit: of what the file states, or else of what the caller gives. Never a default.

    Raises
    ------
    ReadError
        Neither says it, both do and differ, or the file's is no voltage.
    """
    if stated is None:
        if given is None:
            raise ReadError(
                f"{where}: no unit in the file, expected one of {', '.join(UNITS)}. Give it with --unit (unit=)."
            )
        stated = given
    factor = mv_per(stated)
    if factor is None:
        raise ReadError(f"{where}: the unit is {stated!r}, expected one of {', '.join(UNITS)}. Convert the file.")
    if given is not None and mv_per(given) != factor:
        raise ReadError(f"{where}: the file says {stated}, but --unit (unit=) says {given}. Leave it out.")
    return factor
