"""HL7 aECG with more than one series: documents of our writer, put together."""

import copy
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from anyecg.errors import ReadError
from anyecg.readers import read
from anyecg.record import Record
from anyecg.writers import write

HL7 = "{urn:hl7-org:v3}"
STARTS = (datetime(2020, 1, 2, 3, 4, 5), datetime(2020, 1, 2, 4, 0, 0), datetime(2020, 1, 3))


def rhythm(place: int) -> Record:
    t = np.arange(2000) / 250
    beat = np.exp(-(((t % 0.8 - 0.4) / 0.02) ** 2)) + 0.05 * np.sin(t)
    return Record(
        np.array([beat, (place + 1) * 0.5 * beat]), fs=250, leads=("I", "II"), age=50, start_time=STARTS[place]
    )


def document(path: Path, places: tuple[int, ...], beats: tuple[int, ...] = (), encoding: str = "utf-8") -> Path:
    """Write the rhythms of these places as one document; of some the code is that of representative beats."""
    roots = []
    for place in places:
        write(rhythm(place), path, force=True)
        roots.append(ElementTree.parse(path).getroot())
    for place, root in zip(places, roots, strict=True):
        (component,) = root.findall(f"{HL7}component")
        if place in beats:
            component.find(f"{HL7}series/{HL7}code").set("code", "REPRESENTATIVE_BEAT")
        if root is not roots[0]:
            roots[0].append(copy.deepcopy(component))
    ElementTree.ElementTree(roots[0]).write(path, encoding=encoding, xml_declaration=True)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_each_rhythm_is_named_by_its_place(tmp_path, encoding):
    path = document(tmp_path / "three.xml", (0, 1, 2), encoding=encoding)
    first = read(path)
    assert any("only the first of 3 rhythm series was read; the next is named three.xml#1" in w for w in first.warnings)
    for place in range(3):
        record = read(f"{path}#{place}")
        assert (record.leads, record.fs, record.id, record.start_time) == (("I", "II"), 250, "three", STARTS[place])
        np.testing.assert_allclose(record.signal, rhythm(place).signal, atol=1e-4)
        assert not any("rhythm series" in warning for warning in record.warnings)
    part = read(f"{path}#1", start_s=2, end_s=3)
    np.testing.assert_array_equal(part.signal, read(f"{path}#1").signal[:, 500:750])
    with pytest.raises(ReadError, match=r"three\.xml#3: an aECG of 3 rhythm series"):
        read(f"{path}#3")


def test_representative_beats_are_no_rhythm(tmp_path):
    path = document(tmp_path / "a.xml", (0, 1, 2), beats=(0, 2))
    record = read(path)
    np.testing.assert_allclose(record.signal, rhythm(1).signal, atol=1e-4)
    assert any("median beats were not read" in warning for warning in record.warnings)
    with pytest.raises(ReadError, match="No rhythm series"):
        read(document(tmp_path / "b.xml", (0, 1), beats=(0, 1)))


def test_a_place_in_a_file_of_one_series(tmp_path):
    path = document(tmp_path / "a.xml", (1,))
    np.testing.assert_array_equal(read(f"{path}#0").signal, read(path).signal)
    with pytest.raises(ReadError, match="rhythm series, expected a place"):
        read(f"{path}#1")
    with pytest.raises(ReadError, match="a file of one recording"):
        read(f"{path}/II")
