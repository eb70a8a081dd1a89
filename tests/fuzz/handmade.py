"""Seeds of formats that no library writes, or only in few shapes: bytes put together after their descriptions.

Small ones: a reader goes through all its steps on two seconds as on a day.
"""

import binascii
import copy
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

FS = 250.0
File = tuple[str, dict[str, bytes], str, dict[str, Any]]
"""Name of the seed, its files, which of them to read, and what the reader must be told."""


def handmade(folder: Path, signal_mv: np.ndarray) -> Iterator[File]:
    """Yield the files of each seed, made of a signal in mV at `FS`, (12, n); the folder is for what is written."""
    yield "made-pdf", {"rec.pdf": _kardia_pdf(signal_mv[:1], modern=False)}, "rec.pdf", {}
    yield "made-pdf", {"rec.pdf": _kardia_pdf(signal_mv[:1], modern=True)}, "rec.pdf", {}
    for n_bytes, n_leads in ((1, 3), (2, 3), (3, 2)):
        counts = np.round(signal_mv[:n_leads] * (60 if n_bytes == 1 else 400)).astype(int)
        yield "made-scp12", {"rec.scp": _scp_long(counts, n_bytes)}, "rec.scp", {}
    series = _aecg_series(folder, signal_mv[:2])
    yield "made-aecg-series", {"rec.xml": series}, "rec.xml", {}
    counts = np.round(signal_mv[:3] * 200).astype(int)
    for run in (1, int(FS)):
        yield "made-disclosure", {"rec.xml": _full_disclosure(counts, run)}, "rec.xml", {}
    yield "made-cardiosoft", {"rec.xml": _strips(counts)}, "rec.xml", {}
    yield "made-schiller", {"rec.xml": _schiller(counts)}, "rec.xml", {}
    head, raw = _edan(np.round(signal_mv * 200).astype(int))
    yield "made-edan", {"patient.hea": head, "ecgraw.dat": raw}, "patient.hea", {}
    yield from _matlab(signal_mv[:3])


def _kardia_pdf(signal_mv: np.ndarray, modern: bool) -> bytes:
    """Return a report of one lead at 300 Hz: grid, zero lines and a trace, in pieces that share a point."""
    step, per_mv, per_row = 25 * 72 / 25.4 / 300, 10 * 72 / 25.4, 400
    zeros = (200.0, 340.0, 480.0, 620.0)
    parts = []
    for zero, row in zip(zeros, np.split(signal_mv[0, : 4 * per_row], 4 * np.arange(1, 4) * per_row // 4), strict=True):
        points = [f"{18 + step * i:.4f} {zero - per_mv * value:.4f}" for i, value in enumerate(row)]
        for begin in range(0, len(points) - 1, 60):
            first, *rest = points[begin : begin + 61]
            parts.append(f"{first} m " + " ".join(f"{point} l" for point in rest) + " S")
    grid = "\n".join(f"{x:.2f} 0 m {x:.2f} 792 l S" for x in np.arange(0, 612, 42.5))
    lines = " ".join(f"0 {y} m 612 {y} l" for y in (*zeros, 780.0))
    content = (
        "q\n1 0 0 -1 0 792 cm\nBT /F1 9 Tf (25 mm/s) Tj ET\n0.8196 0.8196 0.9608 RG 0.4 w\n"
        f"{grid}\n0 0 0 RG\n.4 w\n{lines} S\n" + "\n".join(parts) + "\nQ\n"
    ).encode()
    objects = {
        1: "<</Type /Catalog /Pages 2 0 R>>",
        2: "<</Type /Pages /Count 1 /Kids [10 0 R]>>",
        10: "<</Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 100 0 R>>",
    }
    out = b"%PDF-1.4\n"
    if modern:  # its dictionaries in a packed stream
        starts = np.cumsum([0, *(len(body) + 1 for body in objects.values())])
        table = " ".join(f"{number} {start}" for number, start in zip(objects, starts, strict=False)) + " "
        inner = zlib.compress((table + " ".join(objects.values())).encode())
        out += f"5 0 obj\n<</Type /ObjStm /N 3 /First {len(table)} /Length {len(inner)} /Filter /FlateDecode>>".encode()
        out += b"\nstream\n" + inner + b"\nendstream\nendobj\n"
    else:
        out += "".join(f"{number} 0 obj\n{body}\nendobj\n" for number, body in objects.items()).encode()
    data = zlib.compress(content) if modern else content
    out += f"100 0 obj\n<</Length {len(data)}{' /Filter /FlateDecode' * modern}>>\nstream\n".encode()
    return out + data + b"\nendstream\nendobj\ntrailer\n<</Root 1 0 R>>\n%%EOF\n"


def _scp_long(counts: np.ndarray, n_bytes: int) -> bytes:
    """Return an SCP-ECG file of version 3 whose section 12 holds the samples."""
    head = bytearray(70)
    struct.pack_into("<IBIB", head, 0, int(FS), len(counts), counts.shape[1], n_bytes)
    struct.pack_into("<HBBBBB", head, 10, 2024, 2, 29, 23, 58, 1)
    leads = b"".join(struct.pack("<BHB", code, 2500, 0) for code in (1, 2, 3)[: len(counts)])
    samples = counts.T.astype("<i4").reshape(-1, 1).view("u1").reshape(-1, 4)[:, :n_bytes]
    bodies = {1: b"\x08\x01\x00\x02\xff\0\0", 12: bytes(head) + leads + samples.tobytes()}
    sections = {number: _section(number, body) for number, body in bodies.items()}
    at = 6 + 16 + 130
    pointers = struct.pack("<HII", 0, 146, 7)
    for number in range(1, 13):
        length = len(sections.get(number, b""))
        pointers += struct.pack("<HII", number, length, at + 1 if length else 0)
        at += length
    content = _section(0, pointers, b"SCPECG") + sections[1] + sections[12]
    rest = struct.pack("<I", 6 + len(content)) + content
    return struct.pack("<H", binascii.crc_hqx(rest, 0xFFFF)) + rest


def _section(number: int, body: bytes, reserved: bytes = bytes(6)) -> bytes:
    body += b"\0" * (len(body) % 2)
    rest = struct.pack("<HIBB6s", number, 16 + len(body), 30, 30, reserved) + body
    return struct.pack("<H", binascii.crc_hqx(rest, 0xFFFF)) + rest


def _aecg_series(folder: Path, signal_mv: np.ndarray) -> bytes:
    """Return a document with two rhythms and a median beat, of our writer's."""
    from anyecg.record import Record
    from anyecg.writers import write

    path = folder / "series.xml"
    write(Record(signal_mv, FS, ("I", "II"), age=50), path, force=True)
    root = ElementTree.parse(path).getroot()
    path.unlink()
    (component,) = root.findall("{*}component")
    for code in ("RHYTHM", "REPRESENTATIVE_BEAT"):
        added = copy.deepcopy(component)
        said = added.find("{*}series/{*}code")
        assert said is not None
        said.set("code", code)
        root.append(added)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _numbers(values: np.ndarray) -> str:
    return ",".join(map(str, values.tolist()))


def _cardiology(inside: str) -> bytes:
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?><CardiologyXML><ObservationDateTime><Hour>9</Hour><Minute>5'
        "</Minute><Second>7</Second><Day>3</Day><Month>11</Month><Year>2015</Year></ObservationDateTime><PatientInfo>"
        f'<Age units="years">61</Age><Gender>MALE</Gender></PatientInfo>{inside}</CardiologyXML>'
    ).encode()


def _full_disclosure(counts: np.ndarray, run: int) -> bytes:
    """Return an exercise test whose leads come in turn, ``run`` samples of each."""
    n = counts.shape[1] // run * run
    samples = counts[:, :n].reshape(len(counts), n // run, run).transpose(1, 0, 2).ravel()
    return _cardiology(
        f'<FullDisclosure><NumberOfChannels>3</NumberOfChannels><SampleRate units="Hz">{FS:g}</SampleRate><Resolution '
        'units="uVperLsb">5</Resolution><LeadOrder>I,V2,V5</LeadOrder><FullDisclosureData>'
        f"{_numbers(samples)},</FullDisclosureData></FullDisclosure>"
    )


def _strips(counts: np.ndarray) -> bytes:
    waves = "".join(
        f'<WaveformData lead="{lead}">{_numbers(row)}</WaveformData>'
        for lead, row in zip(("I", "II", "V1"), counts, strict=True)
    )
    return _cardiology(
        f'<StripData><NumberOfLeads>3</NumberOfLeads><SampleRate units="Hz">{FS:g}</SampleRate><Resolution '
        f'units="uVperLsb">5</Resolution>{waves}</StripData>'
    )


def _schiller(counts: np.ndarray) -> bytes:
    channels = "".join(
        f"<channel><name>{lead}</name><datastype>COMMASEPARATE</datastype><data>{_numbers(row)}</data></channel>"
        for lead, row in zip(("I", "II", "V1"), counts, strict=True)
    )
    return (
        '<?xml version="1.0"?><schillerEDI><patdata><birthdate>1950-02-03</birthdate><gender>FEMALE</gender></patdata>'
        "<examdescript><startdatetime><date>20200504</date><time>030201</time></startdatetime></examdescript>"
        "<eventdata><event><wavedata><type>ECG_RHYTHMS</type><resolution><samplerate><value>250</value></samplerate>"
        f"<yres><units>UV</units><unitperbit>5</unitperbit></yres></resolution>{channels}</wavedata></event></eventdata>"
        "</schillerEDI>"
    ).encode()


def _edan(counts: np.ndarray) -> tuple[bytes, bytes]:
    """Return a header of 3672 bytes, and unsigned counts around 16384 of all leads in turn."""
    head = bytearray(3672)
    struct.pack_into("<II", head, 4, 1_600_000_000, 1_600_000_000 + counts.shape[1] // int(FS))
    head[12] = len(counts)
    struct.pack_into("<h", head, 32, int(FS))
    leads = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    for i, lead in enumerate(leads[: len(counts)]):
        head[1796 + 8 * i : 1796 + 8 * i + len(lead)] = lead.encode()
    return bytes(head), (counts.T + 16384).astype("<u2").tobytes()


def _matlab(signal_mv: np.ndarray) -> Iterator[File]:
    """Yield files of Level 5: plain numbers, and a struct with texts and cells."""
    from scipy.io import savemat

    names = np.array(["I", "II", "V1"], dtype=object)
    counts = (signal_mv * 1000).astype(np.int16)
    struct_ = {"data": signal_mv, "fs": FS, "unit": "mV", "leads": names, "age": 61, "sex": "Female"}
    cases: list[tuple[dict[str, Any], bool, dict[str, Any]]] = [
        ({"val": counts}, False, {"fs": FS, "unit": "uV"}),
        ({"val": counts, "fs": FS, "unit": "uV", "note": "a text"}, True, {}),
        ({"ECG": struct_}, False, {}),
        ({"ECG": struct_}, True, {}),
    ]
    for variables, packed, given in cases:
        content = io.BytesIO()
        savemat(content, variables, do_compression=packed)
        yield "made-mat5", {"rec.mat": content.getvalue()}, "rec.mat", given
