"""PDF reports of KardiaMobile: pages drawn here in the layout that `anyecg.readers.wearables.kardia_pdf` describes."""

import zlib
from itertools import pairwise

import numpy as np
import pytest

from anyecg.errors import ReadError
from anyecg.leads import STANDARD_LEADS
from anyecg.readers import find_files, read
from anyecg.readers.wearables.pdf_strokes import pages

FS = 300.0
STEP = 25 * 72 / 25.4 / FS
PER_MV = 10 * 72 / 25.4
ZEROS_OF_SIX = (171.8, 260.3, 352.1, 440.6, 529.0, 620.9)
ZEROS_OF_ONE = (200.0, 340.0, 480.0, 620.0)
PER_ROW = 2400


def six_leads(n: int) -> np.ndarray:
    t = np.arange(n) / FS
    qrs, wave = np.exp(-(((t % 0.8 - 0.4) / 0.012) ** 2)), np.exp(-(((t % 0.8 - 0.65) / 0.05) ** 2))
    one, two = 0.6 * qrs + 0.1 * wave, 1.1 * qrs + 0.25 * wave - 0.05 * np.sin(t)
    return np.array([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2])


def trace(row: np.ndarray, zero: float, left: float = 18.0, chunk: int = 60, anew: bool = False) -> str:
    """Return the paths of a row in points from the top left: pieces that share a point, drawn one after the other."""
    x, y = left + STEP * np.arange(len(row)), zero - PER_MV * row
    parts = []
    for begin in range(0, len(row) - 1, chunk):
        places = range(begin, min(begin + chunk + 1, len(row)))
        points = [f"{x[i]:.5f} {y[i]:.5f}" for i in places]
        if anew:
            parts.append(" ".join(f"{a} m {b} l" for a, b in pairwise(points)) + " S")
        else:
            parts.append(f"{points[0]} m " + " ".join(f"{p} l" for p in points[1:]) + " S")
    return "\n".join(parts)


def sheet(zeros: tuple[float, ...], traces: list[str]) -> bytes:
    """Return a page's content: text, a grid in purple, lines at 0 mV, then the trace in black."""
    grid = "\n".join(f"{x} 0 m {x} 792 l S" for x in np.arange(0, 612, 14.17))
    lines = " ".join(f"0 {y} m 612 {y} l" for y in (*zeros, 780.0))  # one more, below the strips
    return (
        "q\n1 0 0 -1 0 792 cm\nBT /F1 9 Tf (S \\) m (l) 25 mm/s) Tj <0041> Tj ET\n% a comment m l S\n"
        f"0.8196 0.8196 0.9608 RG 0.4 w\n{grid}\nq 2 w 0 G 10 10 m 600 10 l S Q\n"
        f"0 0 0 RG\n.4 w\n{lines} S\n" + "\n".join(traces) + "\nQ\n"
    ).encode()


def report(contents: list[bytes], *, packed: bool = True, modern: bool = False, root: str = "") -> bytes:
    """Return a PDF; a modern one keeps its dictionaries in an object stream and each page's content in two parts."""
    n = len(contents)
    kids = " ".join(f"{10 + i} 0 R" for i in range(n))
    objects = {1: f"<</Type /Catalog /Pages 2 0 R{root}>>", 2: f"<</Type /Pages /Count {n} /Kids [{kids}]>>"}
    streams = {}
    for i, content in enumerate(contents):
        cut = content.find(b"\n", len(content) // 2) if modern else len(content)
        streams[100 + 2 * i], streams[101 + 2 * i] = content[:cut], content[cut:]
        parts = f"[{100 + 2 * i} 0 R {101 + 2 * i} 0 R]" if modern else f"{100 + 2 * i} 0 R"
        objects[10 + i] = f"<</Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {parts}>>"
    out = b"%PDF-1.4\n%\xd3\xeb\xe9\xe1\n"
    if modern:
        bodies = list(objects.values())
        starts = np.cumsum([0, *(len(body) + 1 for body in bodies)])
        table = " ".join(f"{number} {start}" for number, start in zip(objects, starts, strict=False)) + " "
        inner = zlib.compress((table + " ".join(bodies)).encode())
        out += f"5 0 obj\n<</Type /ObjStm /N {len(bodies)} /First {len(table)} /Length {len(inner)} ".encode()
        out += b"/Filter [/FlateDecode]>>\nstream\n" + inner + b"\nendstream\nendobj\n"
    else:
        out += "".join(f"{number} 0 obj\n{body}\nendobj\n" for number, body in objects.items()).encode()
    for number, content in streams.items():
        data = zlib.compress(content) if packed else content
        head = f"{number} 0 obj\n<</Length {len(data)}{' /Filter /FlateDecode' if packed else ''}>>\nstream\n"
        out += head.encode() + data + b"\nendstream\nendobj\n"
    return out + b"trailer\n<</Root 1 0 R>>\n%%EOF\n"


COVER = b"BT (a summary) Tj ET\n"


@pytest.mark.parametrize(
    ("packed", "modern", "anew"), [(True, False, False), (False, False, True), (True, True, False)]
)
def test_six_leads_over_pages(tmp_path, packed, modern, anew):
    signal = six_leads(2 * PER_ROW + 500)
    signal[:, :150] = np.where((np.arange(150) >= 30) & (np.arange(150) < 90), 1.0, 0.0)
    parts = np.split(signal, [PER_ROW, 2 * PER_ROW], axis=1)
    drawn = [
        sheet(ZEROS_OF_SIX, [trace(r, z, anew=anew) for r, z in zip(part, ZEROS_OF_SIX, strict=True)]) for part in parts
    ]
    path = tmp_path / "ECG.pdf"
    path.write_bytes(report([COVER, *drawn], packed=packed, modern=modern))
    record = read(path)
    assert (record.format, record.fs, record.leads) == ("kardiapdf", 300, STANDARD_LEADS[:6])
    assert record.gain_known
    assert np.isnan(record.signal[:, :90]).all()
    np.testing.assert_allclose(record.signal[:, 90:], signal[:, 90:], atol=1e-5)
    assert (record.age, record.sex, record.start_time) == (None, None, None)
    text = " ".join(record.warnings)
    assert "drawing in a PDF" in text and "calibration pulse of 1 mV until 0.30 s" in text
    part = read(path, start_s=5, end_s=12.5)
    np.testing.assert_array_equal(part.signal, record.signal[:, 1500:3750])
    assert part.start_s == 5


def test_one_lead_in_rows(tmp_path):
    row = six_leads(3 * PER_ROW + 1234)[1]
    rows = np.split(row, [PER_ROW, 2 * PER_ROW, 3 * PER_ROW])
    path = tmp_path / "ECG.pdf"
    path.write_bytes(
        report([COVER, sheet(ZEROS_OF_ONE, [trace(r, z) for r, z in zip(rows, ZEROS_OF_ONE, strict=True)])])
    )
    record = read(path)
    assert record.leads == ("I",)
    assert not record.gain_known
    np.testing.assert_allclose(record.signal[0], row, atol=1e-5)
    assert any("10 mm/mV is assumed" in warning for warning in record.warnings)
    assert any("taken as lead I" in warning for warning in record.warnings)


def test_a_missing_piece_stays_a_gap_and_a_drawn_line_is_read(tmp_path):
    row = six_leads(600)[1]
    pieces = trace(row, 200.0).split("\n")
    del pieces[3]  # samples 181 to 239 are drawn by no piece; 180 and 240 also end others
    path = tmp_path / "ECG.pdf"
    path.write_bytes(report([sheet(ZEROS_OF_ONE, ["\n".join(pieces)])]))
    signal = read(path).signal[0]
    assert np.flatnonzero(np.isnan(signal)).tolist() == [*range(181, 240)]
    long = trace(row, 200.0, chunk=599).split()
    straight = long[: 3 * 100] + long[3 * 110 :]  # from sample 99 to 110 in one piece
    path.write_bytes(report([sheet(ZEROS_OF_ONE, [" ".join(straight)])]))
    signal = read(path).signal[0]
    np.testing.assert_allclose(signal[99:111], np.linspace(row[99], row[110], 12), atol=1e-5)


def test_other_pages_are_refused(tmp_path):
    signal = six_leads(900)

    def six(rows, **how):
        return sheet(ZEROS_OF_SIX, [trace(r, z, **how) for r, z in zip(rows, ZEROS_OF_SIX, strict=True)])

    slow = six(signal).replace(b"1 0 0 -1 0 792 cm", b"2 0 0 -1 0 792 cm").replace(b"\n.4 w", b"\n.283 w")
    cases = {
        r"a PDF page without the strips.*\.atc": report([COVER, COVER]),
        r"a PDF page without the strips.*": report([six(signal).replace(b"0 0 0 RG", b".5 0 0 RG")]),
        "0.4724/72 inch apart": report([slow]),
        "contradict Einthoven": report([six(signal[::-1])]),
        r"pages of \[7\] strips": report(
            [sheet((*ZEROS_OF_SIX, 700.0), [trace(signal[0], z) for z in (*ZEROS_OF_SIX, 700.0)])]
        ),
        "an encrypted PDF": report([six(signal)], root=" /Encrypt 9 0 R"),
        "packed by ": report([six(signal)]).replace(b"/FlateDecode", b"/LZWDecode\x20\x20"),
        "damaged data in a PDF": report([six(signal)]).replace(zlib.compress(b"")[:2], b"\0\0"),
        "expected at most 14400": report([six(signal).replace(b" l S\nQ", b" l 999999999 9 l S\nQ")]),
    }
    for i, (message, data) in enumerate(cases.items()):
        path = tmp_path / f"{i}.pdf"
        path.write_bytes(data)
        with pytest.raises(ReadError, match=message):
            read(path)


def test_a_path_through_no_number_is_not_drawn(tmp_path):
    signal = six_leads(900)
    drawn = sheet(ZEROS_OF_SIX, [trace(r, z) for r, z in zip(signal, ZEROS_OF_SIX, strict=True)])
    path = tmp_path / "ECG.pdf"
    path.write_bytes(report([drawn.replace(b" l S\nQ", b" l " + b"9" * 400 + b" 9 l S\nQ")]))
    rows, places = np.nonzero(np.isnan(read(path).signal))
    assert (set(rows.tolist()), places.tolist()) == ({5}, [*range(841, 900)])


def test_a_stated_rate_is_not_overridden(tmp_path):
    path = tmp_path / "ECG.pdf"
    path.write_bytes(report([sheet(ZEROS_OF_ONE, [trace(six_leads(900)[0], 200.0)])]))
    with pytest.raises(ReadError, match="300"):
        read(path, fs=500)


def test_a_folder_is_not_searched_for_reports(tmp_path):
    path = tmp_path / "ECG.pdf"
    path.write_bytes(report([sheet(ZEROS_OF_ONE, [trace(six_leads(900)[0], 200.0)])]))
    with pytest.raises(ReadError, match="no ECG there"):
        find_files([tmp_path])
    assert find_files([path]) == [path]


def test_strokes_of_a_page(tmp_path):
    content = (
        b"q .5 0 0 .5 10 20 cm 4 w 0 .5 1 RG 0 0 m 10 0 l 10 10 l s Q\n1 w .5 G 1 2 3 4 re S\n"
        b"0 1 1 .5 K 5 5 m 6 6 7 7 8 9 c S\n"
        b"BI /W 1 /H 1 ID 1 1 m 2 2 l S\n EI 0 0 m 1 1 l f 0 0 m 1 1 l n 3 3 m 4 4 l B*"
    )
    (tmp_path / "a.pdf").write_bytes(report([content]))
    (found,) = pages(tmp_path / "a.pdf")
    assert [(s.colour, s.width) for s in found[:2]] == [((0, 0.5, 1), 2), ((0.5, 0.5, 0.5), 1)]
    assert found[0].lines[0].tolist() == [[10, 20], [15, 20], [15, 25], [10, 20]]
    assert found[1].lines[0].tolist() == [[1, 2], [4, 2], [4, 6], [1, 6], [1, 2]]
    assert (found[2].colour, found[2].lines[0].tolist()) == ((0.5, 0, 0), [[5, 5], [8, 9]])
    assert found[3].lines[0].tolist() == [[3, 3], [4, 4]]
    assert len(found) == 4


def test_damage(tmp_path):
    signal = six_leads(900)
    whole = report([sheet(ZEROS_OF_SIX, [trace(r, z) for r, z in zip(signal, ZEROS_OF_SIX, strict=True)])], modern=True)
    rng = np.random.default_rng(0)
    path = tmp_path / "a.pdf"
    for trial in range(40):
        changed = bytearray(whole[: len(whole) * trial // 20] if trial < 20 else whole)
        for at in rng.integers(0, len(whole), 4 if trial >= 20 else 0):
            changed[at] = rng.integers(0, 256)
        path.write_bytes(bytes(changed) or b"%PDF-")
        try:
            read(path)
        except ReadError as error:
            assert "\n" not in str(error)
