"""``anyecg convert A B`` from every format that is written to every other, of a recording that fits none well."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from anyecg.cli import app
from anyecg.readers import read
from anyecg.record import Record
from anyecg.writers import write

SUFFIXES = {
    **{"wfdb": ".hea", "csv": ".csv", "tsv": ".tsv", "edf": ".edf", "dicom": ".dcm", "scp": ".scp"},
    **{"aecg": ".xml", "parquet": ".parquet", "fhir": ".json"},
}
ASKED_FOR = {"scp": "SCP-ECG asks for one", "dicom": "DICOM asks for one", "aecg": "an aECG asks for one"}


@pytest.fixture
def odd_lead(tmp_path: Path, odd_rate: Record) -> tuple[Record, Path]:
    """One lead, 257.3 Hz, a gap, nothing known of person or time."""
    signal = odd_rate.signal[:1].copy()
    signal[0, 700:900] = np.nan
    record = Record(signal, fs=257.3, leads=("II",))
    write(record, tmp_path / "odd.parquet")
    return record, tmp_path / "odd.parquet"


def convert(source: Path, target: Path) -> str:
    """Run the command; return what it says on standard error."""
    result = CliRunner().invoke(app, ["convert", str(source), str(target)])
    assert result.exit_code == 0, result.output
    return result.stderr


@pytest.mark.parametrize("first", SUFFIXES)
def test_from_any_to_any(first: str, odd_lead: tuple[Record, Path], tmp_path: Path) -> None:
    record, source = odd_lead
    middle = tmp_path / f"first{SUFFIXES[first]}"
    said = convert(source, middle)
    assert (ASKED_FOR.get(first, "asks for one") in said) == (first in ASKED_FOR)
    assert ("257.3 Hz is kept as 257.2678158 Hz" in said) == (first == "scp")
    for then, suffix in SUFFIXES.items():
        target = tmp_path / f"{first}-{then}{suffix}"
        convert(middle, target)
        again = read(target)
        assert (again.leads, again.age, again.sex, again.start_time) == (("II",), None, None, None)
        assert again.fs == pytest.approx(257.3, rel=2e-4 if "scp" in (first, then) else 1e-9)
        np.testing.assert_allclose(again.signal, record.signal, atol=3e-4)  # NaN where NaN


def test_a_name_in_other_letters(odd_lead: tuple[Record, Path], tmp_path: Path) -> None:
    record, source = odd_lead
    for form, suffix in SUFFIXES.items():
        target = tmp_path / f"Müller_łódź_心電図{suffix}"
        if form == "wfdb":  # its rule for names (header-5)
            result = CliRunner().invoke(app, ["convert", str(source), str(target)])
            assert result.exit_code == 2
            assert "allowed are letters, digits" in result.stderr
            continue
        convert(source, target)
        assert read(target).id == target.stem
        np.testing.assert_allclose(read(target).signal, record.signal, atol=3e-4)
