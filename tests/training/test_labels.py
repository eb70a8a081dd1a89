"""CSVs of labels: what users write, and the one line they get when it is wrong."""

from pathlib import Path

import numpy as np
import pytest

from anyecg.errors import ReadError
from anyecg.training.labels import read_labels


def written(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_one_column_a_label(tmp_path: Path) -> None:
    table = read_labels(
        written(tmp_path, "file,patient,split,AFIB,my own\na.dcm,1,train,1,0\nsub/b.edf,2,val,,1.0\nc.csv,3,test,0,\n")
    )
    assert table.names == ("AFIB", "my own") and not table.exclusive
    assert [row.split for row in table.rows] == ["train", "val", "test"]
    assert table.rows[1].file == tmp_path / "sub/b.edf"
    np.testing.assert_array_equal(table.rows[1].labels, [np.nan, 1])


def test_one_label_a_record_and_a_byte_order_mark(tmp_path: Path) -> None:
    table = read_labels(written(tmp_path, "\ufefffile,label,split\na,N,train\nb,AF,val\n"))
    assert table.names == ("AF", "N") and table.exclusive
    np.testing.assert_array_equal(table.rows[0].labels, [0, 1])
    assert table.rows[0].patient == "a"  # every file is a patient of its own


def test_what_table_programs_add_is_left_out(tmp_path: Path) -> None:
    """Row numbers in a column without a name, blanks, a comma at the end, blank lines, lines cut short."""
    table = read_labels(written(tmp_path, ",file, label ,split,\n0,a, N,train,\n1,b,AF ,val,\n\n2,c,N \n,,,,\n"))
    assert table.names == ("AF", "N") and [row.split for row in table.rows] == ["train", "val", "train"]
    assert [row.file.name for row in table.rows] == ["a", "b", "c"]
    table = read_labels(written(tmp_path, ",file,AF,split\n0,a,1,train\n7,b,,val\n"))
    assert table.names == ("AF",)


def test_without_splits_patients_stay_together_and_a_second_run_splits_alike(tmp_path: Path) -> None:
    lines = [f"{i},p{i // 3},{'AN'[i % 2]}" for i in range(300)]
    path = written(tmp_path, "\n".join(["file,patient,label", *lines]))
    table = read_labels(path)
    split_of = {row.patient: row.split for row in table.rows}
    assert all(split_of[row.patient] == row.split for row in table.rows)
    assert 0.1 < np.mean([row.split == "val" for row in table.rows]) < 0.3
    assert [row.split for row in read_labels(path).rows] == [row.split for row in table.rows]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no rows"),
        ("file,label\n", "no rows"),
        ("path,label\na,N\n", "expected one called file"),
        ("file,label,AF\na,N,1\n", "one or the other"),
        ("file\na\n", "labels are none"),
        ("file,label\na,N\nb,N\n", "expected two"),
        ("file,label\na,N\nb,\nc,AF\n", "line 3: no label"),
        ("file,AF\na,yes\n", "line 2: AF is 'yes', expected 1, 0 or nothing"),
        ("file,AF,split\na,1,training\n", "split is 'training'"),
        ("file,AF,patient,split\na,1,p,train\nb,0,p,val\n", "patient p is in train and in val"),
        ("file,AF,split\na,1,train\nb,0,train\n", "no record in split val"),
        ("file,AF\n,1\n", "line 2: no file name"),
        ("file,AF\na,1\n\nb,0,1\n", "line 4: 3 cells, expected 2 as in the header"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"labels\.csv") as caught:
        read_labels(written(tmp_path, text))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_no_such_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(ReadError):
        read_labels(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00file")
    with pytest.raises(ReadError):
        read_labels(tmp_path / "bytes.csv")
