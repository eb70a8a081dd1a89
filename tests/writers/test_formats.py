"""The same ten seconds in every format agree within one step, and so they do after going from any format to another."""

from pathlib import Path

import numpy as np
import pytest

from anyecg.readers import read
from anyecg.record import Annotation, Record
from anyecg.writers import WRITERS, losses, write

SUFFIX = {
    **{"wfdb": ".hea", "wfdb-flac": ".hea", "csv": ".csv", "edf": ".edf", "dicom": ".dcm", "scp": ".scp"},
    **{"aecg": ".xml", "parquet": ".parquet", "fhir": ".json"},
}
STEP_MV = {
    **dict.fromkeys(("wfdb", "wfdb-flac", "edf", "dicom", "scp", "aecg", "fhir"), 1e-4),
    **{"csv": 1e-6, "parquet": 1e-7},
}
"""Of a lead within +-3.2 mV: 16 bits, six decimals, float32."""

FORMATS = tuple(WRITERS)
READ_AS = {"wfdb-flac": "wfdb"}


def stored(record: Record, form: str, folder: Path) -> Record:
    path = folder / f"{form}{SUFFIX[form]}"
    write(record, path, format=form, force=True)
    return read(path)


def assert_same(got: Record, wanted: Record, step_mv: float, *, fs_rel: float = 0.0) -> None:
    for field in ("leads", "age", "sex", "weight_kg", "start_time", "gain_known", "derived", "restored"):
        assert getattr(got, field) == getattr(wanted, field), field
    assert got.fs == pytest.approx(wanted.fs, rel=fs_rel, abs=0)
    np.testing.assert_allclose(got.signal, wanted.signal, atol=step_mv, rtol=1e-6)  # NaN where NaN


def test_every_writer_is_tested() -> None:
    assert set(SUFFIX) == set(STEP_MV) == set(WRITERS)
    assert all(callable(getattr(writer, name)) for writer in WRITERS.values() for name in ("files", "losses", "write"))


@pytest.mark.parametrize("form", FORMATS)
def test_twelve_leads(form: str, twelve: Record, tmp_path: Path) -> None:
    assert losses(twelve, f"a{SUFFIX[form]}", format=form) == []
    again = stored(twelve, form, tmp_path)
    assert_same(again, twelve, STEP_MV[form])
    assert again.format == READ_AS.get(form, form)
    assert again.warnings == ()


@pytest.mark.parametrize("form", FORMATS)
def test_one_lead_with_a_gap_of_someone_of_56_and_a_half(form: str, single: Record, tmp_path: Path) -> None:
    assert_same(stored(single, form, tmp_path), single, STEP_MV[form])


@pytest.mark.parametrize("form", FORMATS)
def test_a_rate_that_is_not_whole_and_nothing_known(form: str, odd_rate: Record, tmp_path: Path) -> None:
    # SCP-ECG counts whole microseconds: 257.3 Hz are 3886.5 us.
    again = stored(odd_rate, form, tmp_path)
    assert_same(again, odd_rate, STEP_MV[form], fs_rel=2e-4 if form == "scp" else 0.0)
    assert ("257.267" in " ".join(losses(odd_rate, f"a{SUFFIX[form]}", format=form))) is (form == "scp")


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_not_measured_stays_marked(form: str, twelve: Record, tmp_path: Path) -> None:
    marked = twelve.with_(
        derived=frozenset(twelve.leads[2:6]),
        restored=frozenset(twelve.leads[6:]),
        gain_known=False,
        warnings=("the cable was bent " * 20,),
    )
    assert_same(stored(marked, form, tmp_path), marked, STEP_MV[form])
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    if form == "parquet":  # packed
        import pyarrow.parquet as pq

        written = str(pq.read_schema(tmp_path / "parquet.parquet").metadata).encode()
    assert b"estored" in written
    assert b"cable was bent" in written


@pytest.mark.parametrize("first", FORMATS)
def test_from_any_format_to_any_other(first: str, twelve: Record, tmp_path: Path) -> None:
    in_first = stored(twelve, first, tmp_path)
    for second in FORMATS:
        (tmp_path / second).mkdir()
        again = stored(in_first, second, tmp_path / second)
        assert_same(again, twelve, STEP_MV[first] + STEP_MV[second])
        assert again.warnings == (), second


@pytest.mark.parametrize("form", FORMATS)
def test_a_slice_of_what_was_written(form: str, twelve: Record, tmp_path: Path) -> None:
    path = tmp_path / f"a{SUFFIX[form]}"
    write(twelve, path, format=form)
    cut = read(path, start_s=2.0, end_s=5.0)
    np.testing.assert_allclose(cut.signal, twelve.signal[:, 1000:2500], atol=STEP_MV[form], rtol=1e-6)
    assert cut.start_time is not None
    assert cut.start_time.second == 7


@pytest.mark.parametrize("form", FORMATS)
def test_annotations_are_kept_or_named_as_lost(form: str, twelve: Record, tmp_path: Path) -> None:
    annotated = twelve.with_(
        annotations=(
            Annotation(1.0, 1.0, "beat", "V"),
            Annotation(0.0, 2.0, "rhythm", "AFIB"),
            Annotation(0.0, 10.0, "diagnosis", "164889003"),
            Annotation(3.0, 4.0, "quality", "noise", "V1", 0.75),
        )
    )
    again = stored(annotated, form, tmp_path)
    lost = " ".join(losses(annotated, f"a{SUFFIX[form]}", format=form))
    kept = {annotation.kind for annotation in again.annotations}
    for kind in ("beat", "rhythm", "diagnosis", "quality"):
        assert (kind in kept) is (f"1 {kind}" not in lost), f"{kind} is neither kept nor named"
    if form in ("edf", "parquet"):
        assert set(again.annotations) >= {a for a in annotated.annotations if a.kind in ("beat", "quality")}


@pytest.mark.parametrize("form", FORMATS)
def test_some_leads_in_an_order_of_their_own(form: str, twelve: Record, tmp_path: Path) -> None:
    # Eight of a device's leads would be completed to twelve, and any leads sorted: not those of a file of ours.
    eight = twelve.pick(["V6", "V5", "V4", "V3", "V2", "V1", "II", "I"])
    assert_same(stored(eight, form, tmp_path), eight, STEP_MV[form])


def test_a_format_named_instead_of_the_suffix(twelve: Record, tmp_path: Path) -> None:
    write(twelve, tmp_path / "noname", format="dicom")
    assert read(tmp_path / "noname").format == "dicom"


@pytest.mark.data
@pytest.mark.parametrize("form", FORMATS)
def test_a_real_recording(form: str, database, tmp_path: Path) -> None:
    record = read(next(iter(sorted(database("ptb-xl").rglob("*_hr.hea")))))
    again = stored(record, form, tmp_path)
    assert again.leads == record.leads
    assert again.fs == record.fs
    assert (again.age, again.sex) == (record.age, record.sex)
    np.testing.assert_allclose(again.signal, record.signal, atol=5e-4)
