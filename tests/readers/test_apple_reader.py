"""Apple Health's ECGs, in the languages whose exports are known from public readers' tests."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from anyecg.errors import ReadError
from anyecg.readers import find_files, read

UV = np.round(300 * np.sin(np.arange(1500) / 25), 3)

ENGLISH = (
    "Name,Jane Doe",
    'Date of Birth,"5 Feb 1952"',
    "Recorded Date,2020-02-05 09:14:40 -0400",
    "Classification,Sinus Rhythm",
    "Symptoms,",
    "Software Version,1.51",
    'Device,"Watch5,4"',
    "Sample Rate,512.844 hertz",
    "",
    "",
    "Lead,Lead I",
    "Unit,µV",
    "",
)
GERMAN = (
    "Name",
    'Geburtstag,"05.02.1952"',
    "Aufzeichnungsdatum,2020-02-05 09:14:40 -0400",
    "Klassifizierung,Sinusrhythmus",
    "Symptome,",
    "Softwareversion,1.13",
    'Gerät,"Watch4,2"',
    "Messrate,512,844\u00a0Hertz",
    "",
    "",
    "Ableitung,Ableitung I",
    "Einheit,µV",
    "",
)
JAPANESE = (
    "名前,テスト ユーザー",
    '生年月日,"1952/02/05"',
    "記録日,2020-02-05 09:14:40 -0400",
    "分類,洞調律",
    "サンプルレート,512.844ヘルツ",
    "",
    "リード,リードI",
    "単位,µV",
    "",
)


def export(path: Path, header: tuple[str, ...] = ENGLISH, comma: bool = False) -> Path:
    numbers = [f"{value:g}".replace(".", "," if comma else ".") for value in UV]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*header, *numbers]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(("header", "comma"), [(ENGLISH, False), (GERMAN, True), (JAPANESE, False)])
def test_languages(tmp_path, header, comma):
    record = read(export(tmp_path / "ecg_2020-02-05.csv", header, comma))
    assert (record.format, record.leads, record.fs) == ("apple", ("I",), 512.844)
    assert record.signal[0] == pytest.approx(UV / 1000, abs=1e-6)
    assert record.start_time is not None and record.start_time.isoformat() == "2020-02-05T09:14:40-04:00"
    assert record.age == 68
    assert "Doe" not in repr(record)


def test_a_slice(tmp_path):
    path = export(tmp_path / "a.csv")
    part = read(path, start_s=1, end_s=2)
    np.testing.assert_array_equal(part.signal, read(path).signal[:, 513:1026])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("Unit,µV", "Unit"), "--unit"),
        (("512.844 hertz", "0 hertz"), "sampling rate is 0"),
        ((f"\n{UV[5]:g}\n", "\n1.234,5\n"), "one decimal sign|no number"),
        ((f"\n{UV[5]:g}\n", "\nwaveform\n"), "no number"),
    ],
)
def test_damage_is_not_guessed_around(tmp_path, change, message):
    path = export(tmp_path / "a.csv")
    path.write_text(path.read_text(encoding="utf-8").replace(*change, 1), encoding="utf-8")
    with pytest.raises(ReadError, match=message):
        read(path)


def health_export(folder: Path, n: int) -> Path:
    for i in range(n):
        export(folder / "apple_health_export" / "electrocardiograms" / f"ecg_2020-02-0{i + 1}.csv")
    (folder / "apple_health_export" / "export.xml").write_text("<HealthData/>")
    (folder / "apple_health_export" / "export_cda.xml").write_text("<ClinicalDocument/>")
    return folder / "apple_health_export"


def test_an_export_s_folder(tmp_path):
    found = find_files([health_export(tmp_path, 2)])
    assert [path.name for path in found] == ["ecg_2020-02-01.csv", "ecg_2020-02-02.csv"]


def test_an_export_s_zip(tmp_path):
    folder = health_export(tmp_path / "files", 2)
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(folder.rglob("*")):
            packed.write(file, file.relative_to(tmp_path / "files"))
    with pytest.raises(ReadError, match=r"2 recordings .*Name it: .*export\.zip/apple_health_export"):
        read(path)
    found = find_files([path])
    assert [p.name for p in found] == ["ecg_2020-02-01.csv", "ecg_2020-02-02.csv"]
    record = read(found[1])
    assert (record.format, record.id, record.fs) == ("apple", "ecg_2020-02-02", 512.844)
