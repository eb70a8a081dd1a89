"""Seeds of every format, and mutated copies of them: the same for the same seed and index, on any machine.

Seeds come from independent libraries (wfdb, pyedflib, NumPy, SciPy, h5py, pyarrow), from bytes built after the
standards (ISHNE, MFER, MUSE XML, and all of `handmade`), from our own writers, and from a folder of devices' files if
one is given.
"""

import base64
import bz2
import gzip
import io
import json
import lzma
import random
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from handmade import handmade

FS = 250.0
LARGE_BYTES = 60_000
"""Larger seeds are used ten times less often: they take longer to read and teach no more."""


@dataclass(frozen=True)
class Seed:
    """The files of one recording; ``main`` is the one to read."""

    name: str
    files: dict[str, bytes]
    main: str
    arguments: dict[str, Any] = field(default_factory=dict)


def ecg_mv(n_leads: int = 3, n_samples: int = 750) -> np.ndarray:
    """Return something like an ECG, a beat a second."""
    phase = np.arange(n_samples) / FS % 1.0
    qrs, wave = np.exp(-(((phase - 0.4) / 0.012) ** 2)), 0.25 * np.exp(-(((phase - 0.65) / 0.05) ** 2))
    noise = 0.005 * np.random.default_rng(0).standard_normal((n_leads, n_samples))
    return np.stack([(1 + 0.1 * i) * qrs + (1 - 0.05 * i) * wave for i in range(n_leads)]) + noise


# --- seeds --------------------------------------------------------------------------------------------------------


def make_seeds(folder: Path, samples: Path | None = None) -> tuple[list[Seed], list[str]]:
    """Write seeds of every format into a folder; return them, and what could not be made and why."""
    folder.mkdir(parents=True, exist_ok=True)
    seeds: list[Seed] = []
    missing: list[str] = []
    for make in (_wfdb, _edf, _dicom, _tables, _arrays, _vendor, _own, _packed, _handmade):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for seed in make(folder):
                    seeds.append(seed)
        except Exception as error:  # noqa: BLE001  a seed less is said, and no reason to fuzz nothing
            missing.append(f"{make.__name__.strip('_')}: {type(error).__name__}: {error}")
    if samples is not None and samples.is_dir():
        for path in sorted(samples.glob("*/*")):
            if path.suffix in (".xml", ".scp", ".dcm", ".txt", ".csv", ".json") and path.stem.upper() not in (
                "LICENSE",
                "NOTICE",
                "README",
            ):
                options = {"fs": 500, "unit": "uV"} if path.suffix == ".txt" else {}
                seeds.append(Seed(f"sample-{path.suffix[1:]}", {path.name: path.read_bytes()}, path.name, options))
    return seeds, missing


def _taken(folder: Path, name: str, main: str, **arguments: Any) -> Seed:
    """Return a seed of the files in a folder, and empty it."""
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    for path in list(folder.iterdir()):
        if path.is_file():
            path.unlink()
    return Seed(name, files, main, arguments)


def _wfdb(folder: Path) -> Iterator[Seed]:
    import wfdb

    signal = ecg_mv()

    def record(name: str, fmt: str, gain: float = 200.0, part: slice = slice(None)) -> None:
        wfdb.wrsamp(
            name, FS, ["mV"] * 3, ["I", "II", "V1"], p_signal=signal[:, part].T.copy(), fmt=[fmt] * 3,
            adc_gain=[gain] * 3, baseline=[0] * 3, comments=["Age: 61", "Sex: F", "Dx: 426783006"],
            write_dir=str(folder),
        )  # fmt: skip

    for fmt in ("16", "212", "24", "32", "80", "508", "516", "524"):
        record("rec", fmt, 50.0 if fmt in ("80", "508") else 200.0)
        yield _taken(folder, f"wfdb-{fmt}", "rec.hea")
    record("rec", "16")
    wfdb.wrann(
        "rec", "atr", np.array([5, 100, 350, 600]), ["+", "N", "V", "N"], aux_note=["(N", "", "", ""],
        write_dir=str(folder),
    )  # fmt: skip
    yield _taken(folder, "wfdb-atr", "rec.hea")
    record("long_0001", "16", part=slice(0, 300))
    record("long_0002", "212", part=slice(300, None))
    (folder / "long.hea").write_text("long/3 3 250 850\nlong_0001 300\n~ 100\nlong_0002 450\n")
    yield _taken(folder, "wfdb-segments", "long.hea")


def _edf(folder: Path) -> Iterator[Seed]:
    import pyedflib

    signal = ecg_mv()
    for suffix, kind, digital in (
        (".edf", pyedflib.FILETYPE_EDF, 2**15),
        (".edf", pyedflib.FILETYPE_EDFPLUS, 2**15),
        (".bdf", pyedflib.FILETYPE_BDFPLUS, 2**23),
    ):
        writer = pyedflib.EdfWriter(str(folder / f"rec{suffix}"), 3, file_type=kind)
        writer.setStartdatetime(datetime(2020, 5, 4, 3, 2, 1))
        writer.setSignalHeaders([
            {"label": f"ECG {name}", "dimension": "mV", "sample_frequency": 250, "physical_min": -5.0,
             "physical_max": 5.0, "digital_min": -digital, "digital_max": digital - 1}
            for name in ("I", "II", "V1")
        ])  # fmt: skip
        writer.writeSamples(list(signal))
        if kind != pyedflib.FILETYPE_EDF:
            writer.writeAnnotation(0.4, -1, "N")
        writer.close()
        yield _taken(folder, f"edf{suffix}", f"rec{suffix}")


def _dicom(folder: Path) -> Iterator[Seed]:
    import pydicom
    from pydicom.data import get_testdata_file

    dataset = pydicom.dcmread(str(get_testdata_file("waveform_ecg.dcm", download=False)))
    group = dataset.WaveformSequence[0]
    del dataset.WaveformSequence[1:]
    group.NumberOfWaveformSamples = 500
    group.WaveformData = group.WaveformData[: 500 * 12 * 2]
    dataset.save_as(folder / "rec.dcm")
    yield _taken(folder, "dicom", "rec.dcm")
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    dataset.save_as(folder / "rec.dcm")
    yield _taken(folder, "dicom-deflated", "rec.dcm")


def _tables(folder: Path) -> Iterator[Seed]:
    signal = ecg_mv(2, 400)
    rows = "\n".join(f"{a:.4f},{b:.4f}" for a, b in signal.T)
    texts = {
        "csv": f"I [mV],II [mV]\n{rows}\n",
        "csv-time": "time_s,I (uV),II (uV)\n"
        + "\n".join(f"{i / FS:.3f},{a * 1e3:.1f},{b * 1e3:.1f}" for i, (a, b) in enumerate(signal.T)),
        "csv-comma": "Zeit [s];I [mV];II [mV]\n"
        + "\n".join(f"{i / FS:.3f};{a:.4f};{b:.4f}".replace(".", ",") for i, (a, b) in enumerate(signal.T)),
        "csv-own": f"# anyecg csv 1\n# fs_hz: 250\n# unit: mV\n# age: 61\nI,II\n{rows}\n",
        "tsv": rows.replace(",", "\t"),
        "csv-apple": "Name,X\nDate of Birth,1 Jan 1960\nRecorded Date,2020-05-04 03:02:01 +0000\nClassification,"
        "Sinus Rhythm\nSymptoms,\nSoftware Version,1.2\nDevice,\"Watch6,1\"\nSample Rate,512.4 hertz\n\n\nLead,Lead I\n"
        "Unit,µV\n\n" + "\n".join(f"{a * 1e3:.3f}" for a in signal[0]),
    }  # fmt: skip
    for name, text in texts.items():
        given: dict[str, Any] = {} if name in ("csv-time", "csv-comma", "csv-own", "csv-apple") else {"fs": FS}
        yield Seed(name, {"rec.csv": text.encode()}, "rec.csv", given | ({"unit": "mV"} if name == "tsv" else {}))


def _arrays(folder: Path) -> Iterator[Seed]:
    signal = ecg_mv()
    given = {"fs": FS, "unit": "mV"}

    def saved(save: Callable[..., None], *arguments: Any, **options: Any) -> bytes:
        content = io.BytesIO()
        save(content, *arguments, **options)
        return content.getvalue()

    yield Seed("npy", {"rec.npy": saved(np.save, signal.astype(np.float32))}, "rec.npy", given)
    leads = np.array(["I", "II", "V1"])
    yield Seed("npz", {"rec.npz": saved(np.savez, signal=signal, fs=FS, leads=leads)}, "rec.npz", {"unit": "mV"})
    yield Seed("npz", {"rec.npz": saved(np.savez_compressed, signal=signal, fs=FS, leads=leads)}, "rec.npz",
               {"unit": "mV"})  # fmt: skip
    from scipy.io import savemat

    yield Seed("mat", {"rec.mat": saved(savemat, {"val": (signal * 1000).astype(np.int16)}, format="4")}, "rec.mat",
               {"fs": FS, "unit": "uV"})  # fmt: skip
    yield Seed("mat", {"rec.mat": saved(savemat, {"val": signal}, do_compression=True)}, "rec.mat", given)
    import h5py

    with h5py.File(folder / "rec.hdf5", "w") as file:
        file["tracings"] = np.zeros((1, 256, 12), np.float32) + ecg_mv(12, 256).T[None]
        file["exam_id"] = np.array([7])
    yield _taken(folder, "hdf5", "rec.hdf5", **given)
    document = {"fs_hz": FS, "unit": "mV", "leads": {"I": signal[0, :200].tolist(), "II": signal[1, :200].tolist()}}
    yield Seed("json", {"rec.json": json.dumps(document).encode()}, "rec.json")


def _vendor(folder: Path) -> Iterator[Seed]:
    counts = (ecg_mv(8) * 200).astype("<i2")
    head = bytearray(522)
    head[:8] = b"ISHNE1.0"
    struct.pack_into("<iiii", head, 10, 0, counts.shape[1], 522, 522)
    struct.pack_into("<h", head, 128, 1)
    struct.pack_into("<hhh", head, 132, 3, 2, 1950)
    struct.pack_into("<hhh", head, 138, 4, 5, 2010)
    struct.pack_into("<hhh", head, 150, 6, 7, 8)
    struct.pack_into("<h", head, 156, 3)
    for i in range(12):
        struct.pack_into("<h", head, 158 + 2 * i, 5 + i if i < 3 else -9)
        struct.pack_into("<h", head, 206 + 2 * i, 5000 if i < 3 else -9)
    struct.pack_into("<h", head, 272, 250)
    yield Seed("ishne", {"rec.ecg": bytes(head) + counts[:3].T.tobytes()}, "rec.ecg")

    def tlv(tag: int, value: bytes) -> bytes:
        size = bytes([len(value)]) if len(value) < 128 else b"\x84" + struct.pack(">I", len(value))
        return bytes([tag]) + size + value

    body = tlv(0x40, b"MFR Standard 12 leads ECG".ljust(32)) + tlv(0x01, b"\x01") + tlv(0x08, b"\x01\x00")
    body += tlv(0x0B, b"\x01\xfd" + struct.pack("<H", 4)) + tlv(0x0C, b"\x00\xfa" + struct.pack("<H", 5))
    body += tlv(0x05, b"\x03") + tlv(0x04, struct.pack("<H", 750)) + tlv(0x06, b"\x01") + tlv(0x0A, b"\x00")
    for i in range(3):
        body += b"\x3f" + bytes([i]) + b"\x04" + tlv(0x09, struct.pack("<H", 1 + i))
    yield Seed("mfer", {"rec.mwf": body + tlv(0x1E, counts[:3].tobytes()) + b"\x80\x00"}, "rec.mwf")

    data = "".join(
        f"<LeadData><LeadID>{name}</LeadID><LeadAmplitudeUnitsPerBit>5</LeadAmplitudeUnitsPerBit><LeadAmplitudeUnits>"
        f"MICROVOLTS</LeadAmplitudeUnits><LeadSampleSize>2</LeadSampleSize><WaveFormData>"
        f"{base64.b64encode(row.tobytes()).decode()}</WaveFormData></LeadData>"
        for name, row in zip(("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"), counts, strict=True)
    )
    text = (
        '<?xml version="1.0"?><RestingECG><PatientDemographics><PatientAge>61</PatientAge><Gender>FEMALE</Gender>'
        "</PatientDemographics><Waveform><WaveformType>Rhythm</WaveformType><SampleBase>250</SampleBase>"
        f"<SampleExponent>0</SampleExponent>{data}</Waveform></RestingECG>"
    )
    yield Seed("muse", {"rec.xml": text.encode()}, "rec.xml")


def _own(folder: Path) -> Iterator[Seed]:
    """Formats for which there is no other writer at hand; their readers are not ours, or not by the same hand."""
    from anyecg.leads import STANDARD_LEADS
    from anyecg.record import Annotation, Record
    from anyecg.writers import write

    record = Record(ecg_mv(12), FS, STANDARD_LEADS, age=61, sex="female", start_time=datetime(2020, 5, 4, 3, 2, 1),
                    annotations=(Annotation(0.4, 0.4, "beat", "N"),))  # fmt: skip
    for name in ("rec.scp", "rec.xml", "rec.parquet", "rec.json", "rec.dcm", "rec.edf", "rec.hea"):
        write(record, folder / name, force=True)
        yield _taken(folder, f"own-{name.split('.')[1]}", name)


def _packed(folder: Path) -> Iterator[Seed]:
    table = b"I [mV],II [mV]\n" + "\n".join(f"{a:.4f},{b:.4f}" for a, b in ecg_mv(2, 400).T).encode()
    for suffix, pack in ((".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)):
        yield Seed("packed", {f"rec.csv{suffix}": pack(table)}, f"rec.csv{suffix}", {"fs": FS})
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", method) as archive:
            archive.writestr("rec.csv", table)
        yield Seed("zip", {"rec.zip": content.getvalue()}, "rec.zip", {"fs": FS})
    import tarfile

    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        entry = tarfile.TarInfo("rec.csv")
        entry.size = len(table)
        tar.addfile(entry, io.BytesIO(table))
    yield Seed("tar", {"rec.tar.gz": content.getvalue()}, "rec.tar.gz", {"fs": FS})


def _handmade(folder: Path) -> Iterator[Seed]:
    for name, files, main, given in handmade(folder, ecg_mv(12)):
        yield Seed(name, files, main, given)


# --- mutations ----------------------------------------------------------------------------------------------------

_ODD_TEXTS = (
    *(b"0", b"-1", b"1e308", b"-1e308", b"nan", b"inf", b"2147483648", b"4294967295", b"99999999999999999999"),
    *(b"", b"1e-320", b"0x10", b"..", b"\xff", b"65536", b"3.5", b"+", b"1_0"),
)
_ODD_INTEGERS = (0, 1, -1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_HEAD_BYTES = 3000
"""Where most fields of most headers lie: half of all changes are made there."""


def mutate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Return a copy with one to four changes; ``other`` lends bytes for splices."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 4))):
        if not changed:
            break
        rng.choice((_flip, _flip, _bytes, _integer, _integer, _number, _number, _cut, _splice, _repeat, _lines))(
            changed, other, rng
        )
    return bytes(changed)


def _place(data: bytearray, rng: random.Random) -> int:
    end = len(data) if rng.random() < 0.5 else min(len(data), _HEAD_BYTES)
    return rng.randrange(end) if end else 0


def _flip(data: bytearray, other: bytes, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _bytes(data: bytearray, other: bytes, rng: random.Random) -> None:
    at, n = _place(data, rng), rng.choice((1, 2, 4, 16))
    data[at : at + n] = bytes([rng.choice((0, 0xFF, 0x7F, 0x80, 0x20, rng.randrange(256)))]) * n


def _integer(data: bytearray, other: bytes, rng: random.Random) -> None:
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice(_ODD_INTEGERS) & (256**size - 1)
    at = _place(data, rng)
    data[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))  # type: ignore[arg-type]


def _number(data: bytearray, other: bytes, rng: random.Random) -> None:
    """Replace a number written as text; keeps the width of a fixed-width field half of the time."""
    head = bytes(data[:_HEAD_BYTES])
    found = list(re.finditer(rb"-?\d+(?:\.\d+)?", head))
    if not found:
        return _integer(data, other, rng)
    match = rng.choice(found)
    text = rng.choice(_ODD_TEXTS)
    if rng.random() < 0.5:
        text = text[: match.end() - match.start()].ljust(match.end() - match.start())
    data[match.start() : match.end()] = text


def _cut(data: bytearray, other: bytes, rng: random.Random) -> None:
    if rng.random() < 0.5:
        del data[_place(data, rng) :]
    else:
        at = _place(data, rng)
        del data[at : at + rng.choice((1, 2, 8, 64, 1024))]


def _splice(data: bytearray, other: bytes, rng: random.Random) -> None:
    start = rng.randrange(max(1, len(other)))
    piece = other[start : start + rng.choice((4, 32, 256, 2048))]
    at = _place(data, rng)
    if rng.random() < 0.5:
        data[at:at] = piece
    else:
        data[at : at + len(piece)] = piece


def _repeat(data: bytearray, other: bytes, rng: random.Random) -> None:
    at, n = _place(data, rng), rng.choice((2, 16, 200))
    data[at:at] = data[at : at + n] * rng.choice((1, 2, 50))


def _lines(data: bytearray, other: bytes, rng: random.Random) -> None:
    lines = bytes(data).split(b"\n")
    if len(lines) < 3:
        return _flip(data, other, rng)
    a, b = rng.randrange(min(len(lines), 12)), rng.randrange(min(len(lines), 12))
    if rng.random() < 0.5:
        lines[a], lines[b] = lines[b], lines[a]
    else:
        lines[a:a] = [lines[b]] * rng.choice((1, 1, 100))
    data[:] = b"\n".join(lines)


class Maker:
    """Makes the mutated input of a seed number and an index, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.scratch = folder / f"scratch-{random.SystemRandom().randrange(10**9)}"
        self.scratch.mkdir(parents=True)
        self.seeds = load_seeds(folder)
        self.weights = [0.1 if sum(map(len, seed.files.values())) > LARGE_BYTES else 1.0 for seed in self.seeds]

    def make(self, seed: int, index: int) -> tuple[Path, dict[str, Any], str]:
        """Write the input's files; return the one to read, the arguments and the name of the seed."""
        rng = random.Random(f"{seed}/{index}")
        [chosen] = rng.choices(self.seeds, self.weights)
        other = rng.choice(list(rng.choice(self.seeds).files.values()))
        for path in self.scratch.iterdir():
            path.unlink()
        target = rng.choice(list(chosen.files)) if rng.random() < 0.6 else chosen.main
        for name, data in chosen.files.items():
            (self.scratch / name).write_bytes(mutate(data, other, rng) if name == target else data)
        return self.scratch / chosen.main, chosen.arguments, chosen.name


def save_seeds(seeds: list[Seed], folder: Path) -> None:
    """Write seeds as a folder each, with what is needed to load them again."""
    for i, seed in enumerate(seeds):
        place = folder / "seeds" / f"{i:03d}"
        place.mkdir(parents=True)
        for name, data in seed.files.items():
            (place / name).write_bytes(data)
        about = {"name": seed.name, "main": seed.main, "arguments": seed.arguments}
        (folder / "seeds" / f"{i:03d}.about").write_text(json.dumps(about))


def load_seeds(folder: Path) -> list[Seed]:
    """Load what `save_seeds` wrote, in the same order."""
    seeds = []
    for about in sorted((folder / "seeds").glob("*.about")):
        said = json.loads(about.read_text())
        files = {path.name: path.read_bytes() for path in sorted(about.with_suffix("").iterdir())}
        seeds.append(Seed(said["name"], files, said["main"], said["arguments"]))
    return seeds
