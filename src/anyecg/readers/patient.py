"""Age and sex from the many ways files write them. A name is never read."""

import re
from datetime import date, datetime

OLDEST_YEARS = 130.0

_AGE_UNITS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_SEXES = {"m": "male", "male": "male", "f": "female", "female": "female"}


def plausible_age(years: float | None) -> float | None:
    """Return the age if a person can have it, else None (PTB-XL writes 300 for over 89, MIT-BIH -1 for unknown)."""
    return years if years is not None and 0 <= years <= OLDEST_YEARS else None


def age_from_text(text: str) -> float | None:
    """Return years from ``"56"``, ``"056Y"`` or ``"006M"`` (DICOM AS, PS3.5 table 6.2-1); None if it is not an age.

    Examples
    --------
    >>> age_from_text("006M"), age_from_text("56"), age_from_text("Unknown")
    (0.5, 56.0, None)
    """
    match = re.fullmatch(r"\s*(\d{1,3}(?:\.\d+)?)\s*([YMWD]?)(?:ears?)?\s*", text, re.IGNORECASE)
    if match is None:
        return None
    return plausible_age(float(match[1]) * _AGE_UNITS[match[2].upper() or "Y"])


def age_at(birth: date | datetime | None, recorded: date | datetime | None) -> float | None:
    """Return whole years between two dates, or None if either is unknown or the result no age."""
    if birth is None or recorded is None:
        return None
    before_birthday = (recorded.month, recorded.day) < (birth.month, birth.day)
    return plausible_age(float(recorded.year - birth.year - before_birthday))


def sex_from_text(text: str | None) -> str | None:
    """Return ``"male"``, ``"female"`` or None from ``"M"``, ``"Female"`` ..."""
    return _SEXES.get((text or "").strip().lower())
