"""CardioSoft and Schiller: files made after what open-source readers expect, since no real sample may be shipped."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from anyecg.errors import ReadError
from anyecg.readers import read

STANDARD = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


def counts_of(n_leads: int, n: int = 1000) -> np.ndarray:
    return np.random.default_rng(0).integers(-300, 300, (n_leads, n))


def numbers(row: np.ndarray) -> str:
    """Return numbers with commas, in lines of ten behind tabs, as CardioSoft writes them."""
    lines = [",".join(str(v) for v in row[i : i + 10]) for i in range(0, len(row), 10)]
    return "\n\t\t\t" + ",\n\t\t\t".join(lines) + "\n\t\t"


def write_cardiosoft(
    folder: Path,
    counts: np.ndarray,
    leads: tuple[str, ...] = STANDARD,
    units: str = "uVperLsb",
    encoding: str = "ISO-8859-1",
    strip: str = "StripData",
) -> Path:
    waves = "".join(f'<WaveformData lead="{n}">{numbers(r)}</WaveformData>' for n, r in zip(leads, counts, strict=True))
    before, after = ("<Strip>", "</Strip>") if strip == "Strip" else ("", "")
    path = folder / "cardiosoft.xml"
    text = (
        f'<?xml version="1.0" encoding="{encoding}"?>\n'
        '<!DOCTYPE CardiologyXML SYSTEM "CardiologyXML.dtd">\n'
        "<CardiologyXML><ObservationType>RestECG</ObservationType><ObservationDateTime><Hour>9</Hour>"
        "<Minute>5</Minute><Second>7</Second><Day>3</Day><Month>11</Month><Year>2015</Year></ObservationDateTime>"
        '<PatientInfo><PID>1</PID><Name><FamilyName>Sömebody</FamilyName></Name><Age units="years">61</Age>'
        "<BirthDateTime><Day>1</Day><Month>2</Month><Year>1954</Year></BirthDateTime><Gender>FEMALE</Gender>"
        '<Weight units="kg">70</Weight></PatientInfo>'
        '<RestingECGMeasurements><MedianSamples><SampleRate units="Hz">500</SampleRate>'
        '<Resolution units="uVperLsb">5</Resolution><WaveformData lead="I">9,9,9</WaveformData></MedianSamples>'
        f"</RestingECGMeasurements>{before}<StripData><NumberOfLeads>{len(counts)}</NumberOfLeads>"
        f'<SampleRate units="Hz">500</SampleRate><ChannelSampleCountTotal>{counts.shape[1]}</ChannelSampleCountTotal>'
        f'<Resolution units="{units}">4.88</Resolution>{waves}</StripData>{after}</CardiologyXML>'
    )
    path.write_bytes(text.encode(encoding))
    return path


def write_schiller(folder: Path, counts: np.ndarray, leads: tuple[str, ...] = EIGHT, exponent: str = "1") -> Path:
    root = "com.xiriuz.sema.xml.schillerEDI.SchillerEDI"
    channels = "".join(
        f"<channel><name>{name}</name><datastype>COMMASEPARATE</datastype><samplecount>{len(row)}</samplecount>"
        f"<data>{','.join(map(str, row))}</data></channel>"
        for name, row in zip(leads, counts, strict=True)
    )
    resolution = (
        f"<resolution><samplerate><exponent>{exponent}</exponent><value>500</value></samplerate>"
        "<yres><unitperbit>5</unitperbit><units>uV</units></yres></resolution>"
    )
    path = folder / "schiller.xml"
    path.write_text(
        f'<?xml version="1.0" encoding="UTF-8"?><{root}><patdata><id>1</id><lastname>Somebody</lastname>'
        "<birthdate>1950-06-01</birthdate><gender>MALE</gender><weight><value>80.5</value><unit>kg</unit></weight>"
        "</patdata><examdescript><startdatetime><date>2012-05-31</date><time>10:11:12</time></startdatetime>"
        "</examdescript><eventdata><event><wavedata><type>ECG_AVERAGES</type>"
        f"{resolution}<channel><name>I</name><data>1,2,3</data></channel></wavedata>"
        f"<wavedata><type>ECG_RHYTHMS</type>{resolution}{channels}</wavedata></event></eventdata></{root}>"
    )
    return path


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "utf-8", "utf-16"])
@pytest.mark.parametrize("strip", ["StripData", "Strip"])
def test_cardiosoft(tmp_path, encoding, strip):
    counts = counts_of(12)
    path = write_cardiosoft(tmp_path, counts, encoding=encoding, strip=strip)
    record = read(path)
    assert (record.format, record.fs, record.leads, record.gain_known) == ("cardiosoft", 500, STANDARD, True)
    np.testing.assert_allclose(record.signal, counts * 4.88e-3, rtol=1e-6)
    assert (record.age, record.sex, record.weight_kg) == (61, "female", 70)
    assert record.start_time == datetime(2015, 11, 3, 9, 5, 7)
    assert "mebody" not in repr(record)
    assert any("median beats were not read" in warning for warning in record.warnings)
    np.testing.assert_array_equal(read(path, start_s=0.5, end_s=1).signal, record.signal[:, 250:500])


def test_cardiosoft_of_eight_leads_in_capitals(tmp_path):
    counts = counts_of(8)
    record = read(write_cardiosoft(tmp_path, counts, tuple(name.upper() for name in EIGHT)))
    assert record.leads == STANDARD
    assert record.derived == {"III", "aVR", "aVL", "aVF"}
    np.testing.assert_allclose(record.signal[2], (counts[1] - counts[0]) * 4.88e-3, atol=1e-5)


def test_cardiosoft_lead_off_and_no_scale(tmp_path):
    counts = counts_of(12)
    counts[6, 100:200] = -32768
    record = read(write_cardiosoft(tmp_path, counts))
    assert np.isnan(record.signal[6, 100:200]).all()
    assert np.isnan(record.signal).sum() == 100
    path = write_cardiosoft(tmp_path, counts, units="")
    assert not read(path).gain_known
    assert read(path, unit="uV").gain_known


def test_schiller(tmp_path):
    counts = counts_of(8)
    path = write_schiller(tmp_path, counts)
    record = read(path)
    assert (record.format, record.fs, record.leads, record.gain_known) == ("schiller", 500, STANDARD, True)
    np.testing.assert_allclose(record.signal[[0, 1, *range(6, 12)]], counts * 5e-3, rtol=1e-6)
    assert (record.age, record.sex, record.weight_kg) == (61, "male", 80.5)
    assert record.start_time == datetime(2012, 5, 31, 10, 11, 12)
    assert "Somebody" not in repr(record)
    assert any("ECG_AVERAGES" in warning for warning in record.warnings)
    with pytest.raises(ReadError, match="the file says uV"):
        read(path, unit="mV")


def test_an_empty_place_is_not_recorded(tmp_path):
    path = write_schiller(tmp_path, counts_of(8))
    text = path.read_text()
    at = text.rindex("<data>") + len("<data>")
    path.write_text(text[:at] + ",,,7," + text[at:])
    record = read(path)
    assert np.isnan(record.signal[-1, :3]).all()
    assert record.signal[-1, 3] == pytest.approx(0.035)


def test_what_is_not_clear_is_refused(tmp_path):
    with pytest.raises(ReadError, match="exponent 2"):
        read(write_schiller(tmp_path, counts_of(8), exponent="2"))
    path = write_schiller(tmp_path, counts_of(8))
    whole = path.read_text()
    for old, new, message in (
        ("COMMASEPARATE", "BASE64", "coded as BASE64"),
        ("ECG_RHYTHMS", "ECG_OTHERS", "expected ECG_RHYTHMS"),
        ("<data>1,2,3</data>", "", None),
        ("<value>500</value>", "<value>0</value>", "sampling rate is 0"),
        ("<value>500</value>", "", "no sampling rate"),
    ):
        path.write_text(whole.replace(old, new))
        if message:
            with pytest.raises(ReadError, match=message):
                read(path)
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(ReadError, match="damaged XML"):
        read(path)
    path = write_cardiosoft(tmp_path, counts_of(12))
    path.write_text(path.read_text(encoding="latin-1").replace("StripData", "Other"), encoding="latin-1")
    with pytest.raises(ReadError, match="no StripData"):
        read(path)
    path.write_text('<!DOCTYPE a [<!ENTITY b "c">]><CardiologyXML>&b;</CardiologyXML>')
    with pytest.raises(ReadError, match="declares entities"):
        read(path)


def full_disclosure(folder: Path, counts: np.ndarray, run: int, *, leads: str, end: str = "") -> Path:
    """Return an exercise test whose leads come in turn, so many samples of each."""
    n_leads, n = counts.shape
    samples = counts.reshape(n_leads, n // run, run).transpose(1, 0, 2).ravel()
    path = folder / "exercise.xml"
    path.write_text(
        '<?xml version="1.0" encoding="ISO-8859-1"?><CardiologyXML><ObservationDateTime><Hour>9</Hour>'
        "<Minute>5</Minute><Second>7</Second><Day>3</Day><Month>11</Month><Year>2015</Year></ObservationDateTime>"
        '<PatientInfo><Age units="years">61</Age><Gender>MALE</Gender></PatientInfo><FullDisclosure>'
        f"<StartTime><Minute>0</Minute><Second>2</Second></StartTime><NumberOfChannels>{n_leads}"
        '</NumberOfChannels><SampleRate units="Hz">500</SampleRate><Resolution units="uVperLsb">5</Resolution>'
        f"<LeadOrder>{leads}</LeadOrder><FullDisclosureData>{numbers(samples)},{end}</FullDisclosureData>"
        "</FullDisclosure></CardiologyXML>"
    )
    return path


def waves(n: int) -> np.ndarray:
    """Return three leads of another height and offset each."""
    t = np.arange(n) / 500
    beat = np.exp(-(((t % 0.7 - 0.3) / 0.02) ** 2))
    noise = np.random.default_rng(0).normal(0, 3, (3, n))
    return np.round(np.array([200 * beat + 30, 90 * beat - 10, -120 * beat]) + 10 * np.sin(t) + noise).astype(int)


@pytest.mark.parametrize(("run", "said"), [(1, "one of each"), (500, "500 (one second) of each")])
def test_cardiosoft_full_disclosure(tmp_path, run, said):
    counts = waves(5000)
    record = read(full_disclosure(tmp_path, counts, run, leads="I, V2, V5"))
    assert (record.format, record.fs, record.leads, record.gain_known) == ("cardiosoft", 500, ("I", "V2", "V5"), True)
    np.testing.assert_allclose(record.signal, counts * 5e-3, rtol=1e-6)
    assert (record.age, record.sex, record.start_time) == (61, "male", datetime(2015, 11, 3, 9, 5, 7))
    assert any(said in warning for warning in record.warnings)
    ragged = read(full_disclosure(tmp_path, counts, run, leads="I,V2,V5", end="7,8,"))
    np.testing.assert_array_equal(ragged.signal, record.signal)
    assert any("the last 2 numbers" in warning for warning in ragged.warnings)


def test_a_full_disclosure_that_is_not_clear(tmp_path):
    noise = np.random.default_rng(0).integers(-300, 300, (3, 5000))
    with pytest.raises(ReadError, match="whose order is not clear"):
        read(full_disclosure(tmp_path, noise, 1, leads="I,V2,V5"))
    with pytest.raises(ReadError, match=r"2 names for 3\.0 leads"):
        read(full_disclosure(tmp_path, waves(1000), 1, leads="I,V2"))
    path = full_disclosure(tmp_path, waves(1000), 1, leads="I,V2,V5")
    path.write_text(path.read_text().replace(">500<", "><"))
    with pytest.raises(ReadError, match="sampling rate of None"):
        read(path)
    assert read(full_disclosure(tmp_path, waves(1000)[:1], 1, leads="V5")).n_samples == 1000
