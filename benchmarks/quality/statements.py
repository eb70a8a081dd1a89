"""What the statements of other databases say of ptb-xl's superclasses, where they mean the same."""

from pathlib import Path

import numpy as np

from anyecg.training.datasets import SUPERCLASSES, diagnosis_labels


def other_labels(data: Path) -> dict[str, tuple[str, dict[str, list[float]]]]:
    """Return of each other database its folder and {record: superclasses (5,), NaN = its statements do not say}."""
    cpsc = {}
    for row in diagnosis_labels(data, data / "splits.csv"):
        database, record = row["file"].removesuffix(".hea").split("/", 1)
        if database == "cinc2021" and "/cpsc_2018/" in record:
            blocked = any(row[c] == "1" for c in ("1AVB", "LBBB", "RBBB"))  # all that the source asks about
            cpsc[record] = _five(NORM=row["NORM"] == "1", CD=blocked)
    ludb = {}
    for header in sorted((data / "ludb" / "data").glob("*.hea")):
        ludb[f"data/{header.stem}"] = _ludb_superclasses(header.read_text(errors="replace"))
    return {"cinc2021 (CPSC 2018)": ("cinc2021", cpsc), "ludb": ("ludb", ludb)}


def _five(**known: bool) -> list[float]:
    return [float(known[name]) if name in known else np.nan for name in SUPERCLASSES]


def _ludb_superclasses(header: str) -> list[float]:
    """Read a header's statements. Normal: sinus rhythm, an axis, and nothing else."""
    said = [line.strip("#. ").lower() for line in header.split("<diagnoses>:")[1].splitlines() if line.strip("#. ")]
    further = [s for s in said if not s.startswith(("rhythm: sinus", "electric axis"))]
    conduction = ("block", "hemiblock", "conduction delay", "wpw")
    return _five(
        NORM=not further,
        CD=any(word in s for s in further for word in conduction),
        HYP=any(word in s for s in further for word in ("hypertrophy", "atrial overload")),
    )
