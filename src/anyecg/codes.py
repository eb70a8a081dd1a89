"""Names of what an ECG can show: our code, SNOMED CT, SCP-ECG statements. One table, ``codes.csv``.

SNOMED CT codes and which of them count as the same are those of the PhysioNet/CinC Challenge 2021
(doi:10.23919/CinC53138.2021.9662687), but for the superclasses and ``NORM``. The statements in column ``scp`` are
SCP-ECG's (ISO 11073-91064) as they occur in public collections. MIT-BIH rhythm labels serve as our rhythm codes.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("codes.csv")


@dataclass(frozen=True)
class Code:
    """One finding and its names.

    Parameters
    ----------
    code : str
        Ours: short, stable.
    snomed : str or None
    kind : {"diagnosis", "rhythm"}
    name : str
    scp : tuple of str
        SCP-ECG statements that say it.
    same_snomed : tuple of str
        Further SNOMED CT codes that count as this one.
    words : tuple of str
        Abbreviations older headers use in place of a code.
    """

    code: str
    snomed: str | None
    kind: str
    name: str
    scp: tuple[str, ...]
    same_snomed: tuple[str, ...]
    words: tuple[str, ...]


@cache
def table() -> dict[str, Code]:
    """Return every finding by our code, in the table's order."""
    with open(TABLE, newline="") as file:
        return {
            row["code"]: Code(
                row["code"],
                row["snomed"] or None,
                row["kind"],
                row["name"],
                *(tuple(row[column].split()) for column in ("scp", "same_snomed", "words")),
            )
            for row in csv.DictReader(file)
        }


def codes_of(stated: str) -> set[str]:
    """Return our codes for what a file states: a SNOMED CT code, an SCP-ECG statement or an abbreviation.

    Examples
    --------
    >>> codes_of("713427006"), codes_of("AFLT"), codes_of("no such thing")
    ({'RBBB'}, {'AFL'}, set())
    """
    return {
        entry.code
        for entry in table().values()
        if stated and (stated == entry.snomed or stated in (*entry.scp, *entry.same_snomed, *entry.words))
    }
