"""Lead names: one spelling for each lead, whatever the device wrote.

An unknown name is kept as it is and is *used as an unknown lead*: it is never dropped and never
mistaken for lead I.
"""

import re

LIMB_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF")
PRECORDIAL_LEADS = ("V1", "V2", "V3", "V4", "V5", "V6")
STANDARD_LEADS = LIMB_LEADS + PRECORDIAL_LEADS
"""The standard 12 leads, in the order every output uses."""

OTHER_LEADS = (
    # right-sided and posterior precordial leads
    *("V3R", "V4R", "V5R", "V6R", "V7", "V8", "V9"),
    # Frank's orthogonal leads
    *("X", "Y", "Z"),
    # modified (monitor) limb and chest leads; EASI leads
    *("MLI", "MLII", "MLIII", "MCL1", "MCL6", "CM2", "CM4", "CM5", "CC5", "ES", "AS", "AI"),
)

KNOWN_LEADS = STANDARD_LEADS + OTHER_LEADS

_SPELLINGS = {name.upper(): name for name in KNOWN_LEADS}
# MODIFIED LEAD II and the like are how some Holter exports spell MLII; VX VY VZ are Frank's leads.
_SPELLINGS |= {"VX": "X", "VY": "Y", "VZ": "Z", "1": "I", "2": "II", "3": "III"}
_SPELLINGS |= {"MODIFIEDI": "MLI", "MODIFIEDII": "MLII", "D1": "I", "D2": "II", "D3": "III"}

# What devices put before the name: "ECG I", "Lead II", "MDC_ECG_LEAD_V1", "EKG aVR".
_PREFIX = re.compile(r"^(?:MDC[ _]?ECG[ _]?LEAD|ECG[ _]?LEAD|ECG|EKG|LEAD|CH(?:ANNEL)?)[ _:.\-]+", re.IGNORECASE)


def standard_name(raw: str) -> str:
    """Return the standard spelling of a lead name, or the name itself, stripped, if it is unknown.

    Parameters
    ----------
    raw : str
        The name as the file gives it, such as ``"ECG AVR"``, ``"MDC_ECG_LEAD_V1"`` or ``"Lead ii"``.

    Examples
    --------
    >>> standard_name("MDC_ECG_LEAD_AVR"), standard_name("ecg ii"), standard_name("ECG0")
    ('aVR', 'II', 'ECG0')
    """
    stripped = raw.strip()
    bare = _PREFIX.sub("", stripped)
    # "Channel 1" is a column number, not lead I: a digit counts as a lead only after the word "lead".
    if bare.isdigit() and not re.match(r"(?i)^(?:MDC.*|ECG[ _]?)?LEAD", stripped):
        return stripped
    return _SPELLINGS.get(re.sub(r"[\s_]", "", bare).upper(), stripped)


def unique_names(raw_names: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """Standardise names and tell repeated ones apart.

    Returns
    -------
    names : tuple of str
        One name a lead; a second ``"II"`` becomes ``"II#2"``, and is thus an unknown lead.
    repeated : list of str
        The names that occurred more than once.
    """
    names: list[str] = []
    repeated: list[str] = []
    for index, raw in enumerate(raw_names):
        name = standard_name(raw) or f"lead{index + 1}"
        if name in names:
            repeated.append(name)
            count = 2
            while f"{name}#{count}" in names:
                count += 1
            name = f"{name}#{count}"
        names.append(name)
    return tuple(names), sorted(set(repeated))


def display_order(leads: tuple[str, ...]) -> list[int]:
    """Return the indices that put standard leads first, in the standard order, then the others as they come."""
    rank = {name: i for i, name in enumerate(KNOWN_LEADS)}
    return sorted(range(len(leads)), key=lambda i: (rank.get(leads[i], len(rank)), i))
