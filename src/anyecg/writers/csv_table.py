"""Our CSV: comment lines with what must not be guessed, lead names, a line a sample. Read back without arguments.

    # anyecg csv 1
    # fs_hz: 500.0
    # unit: mV
    I,II
    -0.125,0.01

A value has six decimals: one nanovolt, less than a thousandth of any device's step, and less than float32 keeps of
8 mV. A sample that was not recorded is an empty cell (``nan`` where a line has only one cell: it would be blank).
"""

from pathlib import Path

import numpy as np

from anyecg.record import Record
from anyecg.writers import limits

FIRST_LINE = "# anyecg csv 1"

STEP_MV = 1e-6

_BLOCK_SAMPLES = 65536


def files(record: Record, path: Path) -> list[Path]:
    """Return the one file that is written."""
    return [path]


def losses(record: Record) -> list[str]:
    """Return what the table does not hold of the record, a line each."""
    lines = limits.lead_names(record, [_quoted(lead, ",") for lead in record.leads])
    return lines + limits.source_rate(record) + limits.annotations(record)


def write(record: Record, folder: Path, path: Path) -> None:
    """Write the table into ``folder`` under the name of ``path``; tabs instead of commas for .tsv."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with (folder / path.name).open("w", encoding="utf-8", newline="\n") as file:
        for line in head_lines(record):
            file.write(line + "\n")
        file.write(delimiter.join(_quoted(name, delimiter) for name in record.leads) + "\n")
        for first in range(0, record.n_samples, _BLOCK_SAMPLES):
            block = record.signal[:, first : first + _BLOCK_SAMPLES].T
            file.writelines(delimiter.join(_cells(row)) + "\n" for row in block)


def head_lines(record: Record) -> list[str]:
    """Return the comment lines: everything of a record but its id, its annotations and its place in the source."""
    start_time = record.start_time
    values: dict[str, object] = {
        "fs_hz": repr(record.fs),
        "unit": "mV",
        "age": "" if record.age is None else f"{record.age:g}",
        "sex": record.sex or "",
        "weight_kg": "" if record.weight_kg is None else f"{record.weight_kg:g}",
        "start_time": start_time.isoformat() if start_time else "",
        "gain_known": "" if record.gain_known else "no",
        "derived": ", ".join(name for name in record.leads if name in record.derived),
        "restored": ", ".join(name for name in record.leads if name in record.restored),
    }
    lines = [FIRST_LINE, *(f"# {key}: {value}" for key, value in values.items() if value)]
    return lines + [f"# warning: {' '.join(warning.split())}" for warning in record.warnings]


def _cells(row: np.ndarray) -> list[str]:
    """Return one line's cells, without trailing zeros."""
    missing = "nan" if len(row) == 1 else ""
    return [missing if value != value else f"{value:.6f}".rstrip("0").rstrip(".") for value in row.tolist()]


def _quoted(name: str, delimiter: str) -> str:
    """Return a lead name without what would break the line."""
    return " ".join(name.replace(delimiter, " ").replace('"', " ").replace("#", "_").split()) or "lead"
