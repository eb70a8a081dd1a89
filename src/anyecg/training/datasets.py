"""The public databases AnyECG learns from: their files, their traps, their splits; prepared once, then mapped.

The only place that knows a data set by name. `prepare_databases` reads every record of the restored databases,
prepares it exactly as inference does, and writes one flat float16 file and one JSON index a database; `Corpus` maps
them.

Splits come from one CSV file (``database,record,patient_id,split,strat_fold``), by patient. Nothing but records of
split ``train`` is ever trained on.
"""

import ast
import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from anyecg.checkpoint import file_sha256
from anyecg.codes import codes_of
from anyecg.errors import ReadError
from anyecg.leads import standard_name
from anyecg.record import Record, runs_of
from anyecg.signals import Preparation, prepare


@dataclass
class Entry:
    """One prepared record in a corpus.

    ``offset`` counts float16 values in the flat file. ``clean`` False = too noisy to be a target of decoding.
    ``labels`` are the database's own: superclasses for ptb-xl, one letter for cinc2017, acceptability for cinc2011.
    """

    database: str
    record: str
    patient: str
    split: str
    leads: list[str]
    n_samples: int
    source_fs: float
    offset: int = 0
    gain_known: bool = True
    clean: bool = True
    age: float | None = None
    sex: str | None = None
    weight_kg: float | None = None
    labels: list[str] = field(default_factory=list)


# What one database's function yields: the raw record in mV, the header's text, and what else is known of it.
Raw = tuple[Record, dict[str, object]]


def _wfdb(path: Path, *, digital: bool = False) -> tuple[Record, list[str]]:
    """Read one WFDB record (mV, or digital units) and its header comments."""
    import wfdb

    source = wfdb.rdrecord(str(path), physical=not digital)
    signal = source.d_signal if digital else source.p_signal
    leads = tuple(standard_name(name) for name in source.sig_name)
    if len(set(leads)) < len(leads):
        leads = tuple(f"{name}#{i}" for i, name in enumerate(leads))
    return Record(signal.T.astype(np.float32), source.fs, leads, id=path.name), list(source.comments)


def _age_and_sex(comments: list[str]) -> dict[str, object]:
    """Read age and sex from header comments such as ``Age: 56``, ``<sex>: F`` or ``69 M 1085 1629 x1``."""
    known: dict[str, object] = {}
    for line in comments:
        key, _, value = line.partition(":")
        key, value = key.strip(" <>").lower(), value.strip()
        if key == "age" and value.replace(".", "").isdigit():
            known["age"] = float(value)
        elif key == "sex" and value[:1].upper() in ("M", "F"):
            known["sex"] = {"M": "male", "F": "female"}[value[0].upper()]
    words = comments[0].split() if comments else []
    if len(words) >= 2 and words[0].isdigit() and words[1] in ("M", "F"):
        known |= {"age": float(words[0]), "sex": {"M": "male", "F": "female"}[words[1]]}
    return known


def _without_padding(signal: np.ndarray, fs: float) -> np.ndarray:
    """Mark stretches in which all leads are exactly 0 for over 0.2 s as not recorded."""
    silent = (signal == 0).all(axis=0)
    signal = signal.copy()
    for start, end in runs_of(silent):
        if end - start > 0.2 * fs:
            signal[:, start:end] = np.nan
    return signal


def _ptb_xl(folder: Path, name: str, row: dict[str, str], superclass: dict[str, str]) -> Raw:
    record, _ = _wfdb(folder / name)
    weight = float(row["weight"]) if row["weight"] else None
    classes = {superclass[code] for code in ast.literal_eval(row["scp_codes"]) if code in superclass}
    flawed = any(row[c].strip() for c in ("static_noise", "burst_noise", "electrodes_problems"))
    return record, {
        # 300 stands for "over 89"
        "age": float(row["age"]) if row["age"] and float(row["age"]) < 300 else (90.0 if row["age"] else None),
        "sex": {"0": "male", "1": "female"}.get(row["sex"].split(".")[0]),
        "weight_kg": weight,
        "labels": sorted(classes),
        "clean": not flawed,
    }


def _ptb_xl_reader(folder: Path) -> Callable[[str], Raw]:
    with open(folder / "scp_statements.csv", newline="") as file:
        superclass = {
            row[""]: row["diagnostic_class"] for row in csv.DictReader(file) if row["diagnostic"].startswith("1")
        }
    with open(folder / "ptbxl_database.csv", newline="") as file:
        rows = {row["filename_hr"]: row for row in csv.DictReader(file)}
    return lambda name: _ptb_xl(folder, name, rows[name], superclass)


def _with_header_comments(folder: Path) -> Callable[[str], Raw]:
    def read(name: str) -> Raw:
        record, comments = _wfdb(folder / name)
        return record.with_(signal=_without_padding(record.signal, record.fs)), _age_and_sex(comments)

    return read


def _code_15(folder: Path) -> Callable[[str], Raw]:
    read = _with_header_comments(folder)

    def read_uncalibrated(name: str) -> Raw:
        record, known = read(name)
        return record.with_(gain_known=False), known  # its amplitudes are odd: not to be used as voltages

    return read_uncalibrated


def _ludb(folder: Path) -> Callable[[str], Raw]:
    def read(name: str) -> Raw:
        record, comments = _wfdb(folder / name, digital=True)
        return record.with_(signal=record.signal / 1000), _age_and_sex(comments)  # the header's gains are wrong

    return read


def _cinc2011(folder: Path) -> Callable[[str], Raw]:
    acceptable = set()
    for file in sorted((folder / "set-a").glob("RECORDS-acceptable*")):
        acceptable |= set(file.read_text().split())

    def read(name: str) -> Raw:
        record, _ = _wfdb(folder / name)
        signal = np.where(np.abs(record.signal) > 20, np.nan, record.signal)  # a lead that is off reads -80, 80, -40
        good = name.split("/")[-1] in acceptable
        return record.with_(signal=signal), {"labels": ["acceptable" if good else "unacceptable"], "clean": good}

    return read


def _cinc2017(folder: Path) -> Callable[[str], Raw]:
    with open(folder / "REFERENCE-v3.csv", newline="") as file:
        label = dict(csv.reader(file))

    def read(name: str) -> Raw:
        record, _ = _wfdb(folder / name)
        letter = label[name.split("/")[-1]]
        return record, {"labels": [letter], "clean": letter != "~"}

    return read


def _ecgiddb(folder: Path) -> Callable[[str], Raw]:
    def read(name: str) -> Raw:
        record, comments = _wfdb(folder / name)
        return record.pick(record.leads[:1]), _age_and_sex(comments)  # the second is a filtered copy of the first

    return read


def _afpdb(folder: Path) -> Callable[[str], Raw]:
    read = _with_header_comments(folder)

    def read_uncalibrated(name: str) -> Raw:
        record, known = read(name)
        return record.with_(gain_known=False), known  # 200 units per mV is an assumption

    return read_uncalibrated


READERS_OF: dict[str, Callable[[Path], Callable[[str], Raw]]] = {
    "ptb-xl": _ptb_xl_reader,
    "cinc2021": _with_header_comments,
    "code-15": _code_15,
    "ludb": _ludb,
    "cinc2011": _cinc2011,
    "cinc2017": _cinc2017,
    "ecgiddb": _ecgiddb,
    "mitdb": _with_header_comments,
    "afpdb": _afpdb,
}
"""Databases with signal. nstdb is noise (see `load_noise`); ltafdb, nsrdb and ltdb are annotations."""

NOISE_SPLIT_AT = {"train": (0.0, 0.7), "val": (0.7, 0.85), "test": (0.85, 1.0)}
"""Which stretch of each noise recording a split may use."""

CITATIONS = {
    "ptb-xl": "PTB-XL 1.0.3, Wagner 2020, doi:10.1038/s41597-020-0495-6, CC BY 4.0",
    "cinc2021": "PhysioNet/CinC Challenge 2021, Reyna 2021, doi:10.23919/CinC53138.2021.9662687, CC BY 4.0",
    "code-15": "CODE-15%, Ribeiro 2021, doi:10.5281/zenodo.4916206, CC BY 4.0",
    "ludb": "Lobachevsky University Database, Kalyakulina 2020, doi:10.1109/ACCESS.2020.3029211, ODC-By 1.0",
    "cinc2011": "PhysioNet/CinC Challenge 2011, Silva 2011, Computing in Cardiology 38:273-276, ODC-By 1.0",
    "cinc2017": "PhysioNet/CinC Challenge 2017, Clifford 2017, doi:10.22489/CinC.2017.065-469, ODC-By 1.0",
    "ecgiddb": "ECG-ID Database, Lugovaya 2005, doi:10.13026/C2J01F, ODC-By 1.0",
    "mitdb": "MIT-BIH Arrhythmia Database, Moody 2001, doi:10.1109/51.932724, ODC-By 1.0",
    "afpdb": "PAF Prediction Challenge Database, Moody 2001, Computing in Cardiology 28:113-116, ODC-By 1.0",
}
NOISE_CITATION = "MIT-BIH Noise Stress Test Database, Moody 1984, doi:10.13026/C2HS3T, ODC-By 1.0 (noise mixed in)"

SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
SUPERCLASS_DATABASE, NORMAL = "ptb-xl", ["NORM"]
SINGLE_LEAD_DATABASE, SINGLE_LEAD_NORMAL = "cinc2017", ["N"]
WAVES_DATABASE, BEATS_DATABASE, NOISE_DATABASE = "ludb", "mitdb", "nstdb"
"""The databases whose P, QRS and T waves, and whose beats, are marked (see `anyecg.training.marks`)."""
RHYTHM_DATABASES = ("ltafdb", "nsrdb", "mitdb")  # day-long with rhythm marks, day-long and normal, half-hour ones
TWELVE_LEAD_DATABASES = ("ptb-xl", "cinc2021", "code-15", "ludb", "cinc2011")
RR_DATABASES = ("ltafdb", "nsrdb")  # day-long beat annotations, without signal
PAROXYSMAL_DATABASE = "afpdb"  # pairs of half hours of people with and without paroxysmal atrial fibrillation


def read_splits(path: Path) -> dict[str, dict[str, tuple[str, str]]]:
    """Return ``{database: {record: (patient, split)}}``.

    MIT-BIH's DS1 is ``train`` and its DS2 ``test``; record 201 is withdrawn from ``train`` because its patient is also
    record 202 of DS2.
    """
    if not path.is_file():
        raise ReadError(f"{path}: no such file, expected the CSV of splits. Copy splits.csv beside the databases.")
    splits: dict[str, dict[str, tuple[str, str]]] = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            split = {"ds1_train": "train", "ds2_test": "test"}.get(row["split"], row["split"])
            if (row["database"], row["record"]) == ("mitdb", "201"):
                split = "withdrawn"
            splits.setdefault(row["database"], {})[row["record"]] = (row["patient_id"], split)
    return splits


def prepare_databases(
    data: Path, splits_csv: Path, preparation: Preparation, progress: Callable[[str], None] = print
) -> Path:
    """Prepare every database under ``data`` once; return the folder of the prepared corpora.

    The folder's name holds a hash of the preparation and of the splits, so that a change of either prepares anew.
    """
    splits = read_splits(splits_csv)
    key = json.dumps(asdict(preparation)) + file_sha256(splits_csv)
    folder = data / f"prepared-{hashlib.sha256(key.encode()).hexdigest()[:10]}"
    folder.mkdir(parents=True, exist_ok=True)
    found = [name for name in READERS_OF if (data / name).is_dir()]
    if not found:
        raise ReadError(f"{data}: none of {', '.join(READERS_OF)} found. Restore the databases there first.")
    for name in found:
        if not (folder / f"{name}.json").exists():
            _prepare_database(name, data / name, splits[name], preparation, folder, progress)
    return folder


def _prepare_database(
    name: str,
    source: Path,
    splits: dict[str, tuple[str, str]],
    preparation: Preparation,
    folder: Path,
    progress: Callable[[str], None],
) -> None:
    read = READERS_OF[name](source)
    entries, offset = [], 0
    partial = folder / f"{name}.f16.partial"
    with open(partial, "wb") as file:
        for number, (record_name, (patient, split)) in enumerate(sorted(splits.items())):
            if number % 200 == 0:
                progress(f"preparing {name}: {number} of {len(splits)}")
            raw, known = read(record_name)
            if not np.isfinite(raw.signal).any():
                continue
            record = prepare(raw, preparation)
            record.signal.astype(np.float16).tofile(file)
            entries.append(
                Entry(
                    *(
                        name,
                        record_name,
                        f"{name}/{patient}",
                        split,
                        list(record.leads),
                        record.n_samples,
                        raw.fs,
                        offset,
                    ),
                    gain_known=raw.gain_known,
                    **known,  # type: ignore[arg-type]
                )
            )
            offset += record.signal.size
    partial.rename(folder / f"{name}.f16")
    # The index is written last: its presence says that the database is whole.
    (folder / f"{name}.json").write_text(json.dumps([asdict(entry) for entry in entries]))


class Corpus:
    """The prepared records of some databases and one split, mapped into memory.

    Parameters
    ----------
    folder : Path
        As `prepare_databases` returned it.
    split : str
        ``"train"``, ``"val"`` or ``"test"``.
    databases : sequence of str, optional
        Default: all that are there.
    """

    def __init__(self, folder: Path, split: str, databases: tuple[str, ...] | None = None) -> None:
        self.entries: list[Entry] = []
        self._flat: dict[str, np.ndarray] = {}
        for name in databases or tuple(READERS_OF):
            index = folder / f"{name}.json"
            if index.exists():
                entries = [Entry(**e) for e in json.loads(index.read_text())]
                self.entries += [e for e in entries if e.split == split]
                self._flat[name] = np.memmap(folder / f"{name}.f16", dtype=np.float16, mode="r")

    def __len__(self) -> int:
        return len(self.entries)

    def signal(self, entry: Entry, start: int = 0, end: int | None = None) -> np.ndarray:
        """Return float32 mV, shape (n_leads, end - start)."""
        n_leads = len(entry.leads)
        flat = self._flat[entry.database][entry.offset : entry.offset + n_leads * entry.n_samples]
        return flat.reshape(n_leads, entry.n_samples)[:, start:end].astype(np.float32)

    def records(self, fs_hz: float) -> Iterator[tuple[Entry, Record]]:
        """Yield every entry with its whole prepared record."""
        for entry in self.entries:
            yield entry, self.record(entry, fs_hz)

    def record(self, entry: Entry, fs_hz: float) -> Record:
        """Return one whole prepared record."""
        return Record(
            self.signal(entry),
            fs_hz,
            tuple(entry.leads),
            id=entry.record,
            format="corpus",
            age=entry.age,
            sex=entry.sex,
            weight_kg=entry.weight_kg,
            source_fs=entry.source_fs,
            gain_known=entry.gain_known,
        )


# -- labels --------------------------------------------------------------------------------------------------

DIAGNOSES = (
    *SUPERCLASSES,
    *("SR", "AFIB", "STACH", "SBRAD", "SARRH", "PAC", "PVC", "1AVB", "RBBB", "IRBBB", "LBBB", "LAFB", "IVCD"),
    *("LVH", "LAE", "NSSTT", "STD", "TAB", "TINV", "AMI", "ISCH"),
)
"""Superclasses, and what at least twenty training and three validation records of `SUPERCLASS_DATABASE` show.

Abnormal Q waves were left out again: a head told them from others with an AUROC of .61 on validation records.
"""

_ANNOTATED = {
    "cpsc_2018": ("NORM", "AFIB", "1AVB", "LBBB", "RBBB", "PAC", "PVC", "STD"),
    "ptb": ("MI",),
    **dict.fromkeys(
        ("georgia", "chapman_shaoxing", "ningbo"),
        ("SR", "AFIB", "STACH", "SBRAD", "SARRH", "PAC", "PVC", "1AVB", "RBBB", "LBBB", "LVH", "STD", "TAB", "TINV"),
    ),
}
"""Which of `DIAGNOSES` a source of the challenge set looked for: what another lacks is not known to be absent."""


def diagnosis_labels(data: Path, splits_csv: Path) -> list[dict[str, str]]:
    """Return a row a 12-lead record: file, patient, split, and 1, 0 or "" (not known) for each of `DIAGNOSES`."""
    splits = read_splits(splits_csv)
    rows = []
    stated = _superclass_statements(data / "ptb-xl")
    for name, (patient, split) in sorted(splits["ptb-xl"].items()):
        classes, codes = stated[name]
        known = {c: c in codes for c in DIAGNOSES if c not in SUPERCLASSES}
        known |= {c: c in classes for c in SUPERCLASSES if classes}
        rows.append(_label_row("ptb-xl", name, patient, split, known))
    for name, (patient, split) in sorted(splits["cinc2021"].items()):
        source = Path(name).parts[1]
        header = (data / "cinc2021" / f"{name}.hea").read_text(errors="replace")
        stated_codes = {
            code
            for line in header.splitlines()
            if "Dx:" in line
            for word in line.split("Dx:")[1].split(",")
            for code in codes_of(word.strip())
        }
        known = {c: c in stated_codes for c in _ANNOTATED.get(source, ())}
        known |= {c: True for c in stated_codes if c in DIAGNOSES}
        rows.append(_label_row("cinc2021", name, patient, split, known))
    return rows


def _superclass_statements(folder: Path) -> dict[str, tuple[set[str], set[str]]]:
    """Return of each record its superclasses, and our codes of all its statements."""
    with open(folder / "scp_statements.csv", newline="") as file:
        superclass = {
            row[""]: row["diagnostic_class"] for row in csv.DictReader(file) if row["diagnostic"].startswith("1")
        }
    with open(folder / "ptbxl_database.csv", newline="") as file:
        rows = {row["filename_hr"]: set(ast.literal_eval(row["scp_codes"])) for row in csv.DictReader(file)}
    return {
        name: ({superclass[s] for s in said if s in superclass}, {code for s in said for code in codes_of(s)})
        for name, said in rows.items()
    }


def rhythm_labels(data: Path, splits_csv: Path) -> list[dict[str, str]]:
    """Return a row a single-lead record: file, patient, split, label."""
    with open(data / "cinc2017" / "REFERENCE-v3.csv", newline="") as file:
        letter = dict(csv.reader(file))
    meaning = {"N": "SR", "A": "AFIB", "O": "OTHER", "~": "NOISE"}
    return [
        {
            "file": f"cinc2017/{name}.hea",
            "patient": f"cinc2017/{patient}",
            "split": split,
            "label": meaning[letter[Path(name).name]],
        }
        for name, (patient, split) in sorted(read_splits(splits_csv)["cinc2017"].items())
    ]


def write_label_table(what: str, data: Path, splits_csv: Path, path: Path) -> int:
    """Write the CSV of labels that `anyecg.finetune` reads, into ``data``; return its number of rows.

    Parameters
    ----------
    what : {"diagnosis", "rhythm"}
    """
    if what not in LABEL_TABLES:
        raise ValueError(f"no label table {what!r}; allowed are {', '.join(LABEL_TABLES)}")
    rows = LABEL_TABLES[what](data, splits_csv)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


LABEL_TABLES = {"diagnosis": diagnosis_labels, "rhythm": rhythm_labels}


def _label_row(database: str, name: str, patient: str, split: str, known: dict[str, bool]) -> dict[str, str]:
    row = {"file": f"{database}/{name}.hea", "patient": f"{database}/{patient}", "split": split}
    return row | {c: str(int(known[c])) if c in known else "" for c in DIAGNOSES}


def load_noise(data: Path, split: str, preparation: Preparation) -> dict[str, np.ndarray]:
    """Return the MIT-BIH noise recordings of a split: ``{"bw" | "em" | "ma": float32 (2, n_samples)}``, prepared.

    Raises
    ------
    ReadError
        They are not there.
    """
    if not (data / NOISE_DATABASE / "bw.hea").is_file():
        raise ReadError(f"{data}: no {NOISE_DATABASE}/bw.hea in it, expected the noise database. Restore it there.")
    noise = {}
    for name in ("bw", "em", "ma"):
        raw, _ = _wfdb(data / NOISE_DATABASE / name)
        prepared = prepare(raw, preparation).signal
        first, last = (round(share * prepared.shape[1]) for share in NOISE_SPLIT_AT[split])
        noise[name] = prepared[:, first:last]
    return noise
