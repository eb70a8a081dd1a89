"""Parquet: a float32 column a lead, in mV, NaN where nothing was recorded; the rest as JSON under the key ``anyecg``.

    {"version": 1, "fs_hz": 500.0, "unit": "mV", "age": 56, "sex": "female", "weight_kg": null,
     "start_time": "2020-01-02T03:04:05", "source_fs_hz": null, "gain_known": true, "derived": [], "restored": [],
     "annotations": [{"start_s": 1.0, "end_s": 1.0, "kind": "beat", "code": "V", "lead": null, "score": null}],
     "warnings": []}

The columns stand in the order of the leads and bear their names.
"""

import json
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

from anyecg.record import Annotation, Record

METADATA_KEY = b"anyecg"
VERSION = 1

GROUP_ROWS = 131_072
"""Nine minutes at 250 Hz: what a reader of ten minutes unpacks is little more than that."""


def files(record: Record, path: Path) -> list[Path]:
    """Return the one file that is written."""
    return [path]


def losses(record: Record) -> list[str]:
    """Return nothing: float32 and JSON hold the whole record."""
    return []


def write(record: Record, folder: Path, path: Path) -> None:
    """Write the table into ``folder`` under the name of ``path``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [pa.field(lead, pa.float32(), metadata={b"unit": b"mV"}) for lead in record.leads]
    schema = pa.schema(fields, metadata={METADATA_KEY: json.dumps(metadata(record), allow_nan=False).encode()})
    columns = [pa.array(row, type=pa.float32(), from_pandas=False) for row in record.signal]
    table = pa.Table.from_arrays(columns, schema=schema)
    # Neighbouring floats share their upper bytes: split by byte they pack to a third less, still without loss.
    pq.write_table(
        table,
        folder / path.name,
        compression="zstd",
        use_dictionary=False,
        use_byte_stream_split=True,
        row_group_size=GROUP_ROWS,
    )


def metadata(record: Record) -> dict[str, Any]:
    """Return everything of a record but its signal, its id and its place in the source, ready for JSON."""
    return {
        "version": VERSION,
        "fs_hz": record.fs,
        "unit": "mV",
        "age": record.age,
        "sex": record.sex,
        "weight_kg": record.weight_kg,
        "start_time": record.start_time.isoformat() if record.start_time else None,
        "source_fs_hz": record.source_fs,
        "gain_known": record.gain_known,
        "derived": sorted(record.derived),
        "restored": sorted(record.restored),
        "annotations": [_annotation(annotation) for annotation in record.annotations],
        "warnings": list(record.warnings),
    }


def _annotation(annotation: Annotation) -> dict[str, Any]:
    """Return an annotation for JSON, which knows no infinity: an end that is open is null."""
    return {
        name: None if isinstance(value, float) and not isfinite(value) else value
        for name, value in asdict(annotation).items()
    }
