"""DICOM ECG waveform (PS3.3, A.34.3 to A.34.5 and C.10.9), Explicit VR Little Endian, one multiplex group.

| object | leads | rate, Hz | samples a lead |
|---|---|---|---|
| 12-lead ECG | the twelve standard leads | 200 to 1000 | at most 16384 |
| General ECG | at most 24 | 200 to 1000 | any |
| Ambulatory ECG | at most 12 | 50 to 1000 | any |

The first that holds the record is written. Names, identifiers and dates of the person are left empty.
"""

from datetime import datetime
from pathlib import Path
from typing import Any

from anyecg import __version__
from anyecg.errors import WriteError
from anyecg.record import Record
from anyecg.writers import limits, notes
from anyecg.writers.codes import SCP_CODES
from anyecg.writers.counts import MISSING_COUNT, gains_of, to_counts

STANDARD_TWELVE = frozenset(("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"))

TWELVE_LEAD_SAMPLES = 16384

CODING_VERSION = "1.4"
"""Of UCUM."""


def files(record: Record, path: Path) -> list[Path]:
    """Return the one file that is written."""
    return [path]


def losses(record: Record) -> list[str]:
    """Return what DICOM does not hold of the record, a line each."""
    lines = limits.coarse_steps(record, [1 / gain for gain in gains_of(record)])
    lines += limits.stored_rate(record, float(_decimal(record.fs)), "a DICOM number has 16 characters")
    lines += limits.lead_names(record, [_short(lead) for lead in record.leads])
    if record.start_time is None:
        lines.append("the start time is not known, but DICOM asks for one: it stays empty")
    return lines + limits.source_rate(record) + limits.annotations(record)


def write(record: Record, folder: Path, path: Path) -> None:
    """Write the object into ``folder`` under the name of ``path``.

    Raises
    ------
    WriteError
        No ECG object of DICOM allows so many leads or such a rate.
    """
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    dataset = pydicom.Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class(record, path)
    dataset.SOPInstanceUID = generate_uid()
    _describe(dataset, record)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.WaveformAnnotationSequence = pydicom.Sequence([_remark(line) for line in _remarks(record)])
    dataset.WaveformSequence = pydicom.Sequence([_group(record)])
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(folder / path.name, enforce_file_format=True)


def sop_class(record: Record, path: Path) -> str:
    """Return the UID of the object that holds the record.

    Raises
    ------
    WriteError
        None does.
    """
    from pydicom import uid

    resting, holter = 200 <= record.fs <= 1000, 50 <= record.fs <= 1000
    if resting and set(record.leads) == STANDARD_TWELVE and record.n_samples <= TWELVE_LEAD_SAMPLES:
        return uid.TwelveLeadECGWaveformStorage
    if resting and record.n_leads <= 24:
        return uid.GeneralECGWaveformStorage
    if holter and record.n_leads <= 12:
        return uid.AmbulatoryECGWaveformStorage
    raise WriteError(
        f"{path}: {record.n_leads} leads of {record.fs:g} Hz, expected at most 24 leads of 200 to 1000 Hz, or 12 of 50 "
        "to 1000 Hz, in DICOM. Choose leads, or another format."
    )


def _describe(dataset: Any, record: Record) -> None:
    """Fill in the modules about person, study and device; what is not known stays empty."""
    time = record.start_time
    dataset.PatientName = dataset.PatientID = dataset.PatientBirthDate = ""
    dataset.PatientSex = {"male": "M", "female": "F"}.get(record.sex or "", "")
    if record.age is not None:
        dataset.PatientAge = age_string(record.age)
    if record.weight_kg is not None:
        dataset.PatientWeight = _decimal(record.weight_kg)
    dataset.StudyID = dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.Modality = "ECG"
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.Manufacturer, dataset.SoftwareVersions = "AnyECG", __version__
    day, clock = (time.strftime("%Y%m%d"), time.strftime("%H%M%S.%f")) if time else ("", "")
    dataset.StudyDate = dataset.ContentDate = day
    dataset.StudyTime = dataset.ContentTime = clock
    dataset.AcquisitionDateTime = _date_time(time) if time else ""
    if time is not None and time.tzinfo is not None:
        dataset.TimezoneOffsetFromUTC = time.strftime("%z")[:5]
    dataset.AcquisitionContextSequence = []


def _date_time(time: datetime) -> str:
    """Return a DT (PS3.5, 6.2), with its zone if it has one."""
    return time.strftime("%Y%m%d%H%M%S.%f") + time.strftime("%z")[:5]


def age_string(years: float) -> str:
    """Return an AS (PS3.5, 6.2): the largest unit that says the age to a thousandth of a year, else the finest.

    Examples
    --------
    >>> age_string(56), age_string(0.5), age_string(56.5), age_string(61.23)
    ('056Y', '006M', '678M', '735M')
    """
    units = (("Y", 1.0), ("M", 12.0), ("W", 365.25 / 7), ("D", 365.25))
    for unit, per_year in units:
        count = round(years * per_year)
        if count <= 999 and abs(count / per_year - years) < 1e-3:
            return f"{count:03d}{unit}"
    unit, per_year = next((u, n) for u, n in reversed(units) if round(years * n) <= 999)
    return f"{round(years * per_year):03d}{unit}"


def _remarks(record: Record) -> list[str]:
    """Return what DICOM has no attribute for; the age too if a whole number of its units is another."""
    from anyecg.readers.patient import age_from_text

    exact = record.age is None or age_from_text(age_string(record.age)) == record.age
    return notes.signed(record, person=() if exact else ("age",))


def _remark(line: str) -> Any:
    """Return a waveform annotation that is plain text, about all channels of the one group (C.10.10)."""
    import pydicom

    item = pydicom.Dataset()
    item.UnformattedTextValue = line
    item.ReferencedWaveformChannels = [1, 0]
    item.AnnotationGroupNumber = 0
    return item


def _group(record: Record) -> Any:
    """Return the multiplex group."""
    import pydicom

    counts, gains, baselines = to_counts(record)
    group = pydicom.Dataset()
    group.WaveformOriginality = "DERIVED" if record.restored or record.source_fs else "ORIGINAL"
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = counts.shape
    group.SamplingFrequency = _decimal(record.fs)
    group.MultiplexGroupLabel = "RHYTHM"
    group.ChannelDefinitionSequence = pydicom.Sequence(
        [
            _channel(record, lead, gain, baseline)
            for lead, gain, baseline in zip(record.leads, gains, baselines, strict=True)
        ]
    )
    group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
    group.add_new(0x5400100A, "OW", MISSING_COUNT.to_bytes(2, "little", signed=True))  # Waveform Padding Value
    group.add_new(0x54001010, "OW", counts.T.astype("<i2").tobytes())  # Waveform Data
    return group


def _channel(record: Record, lead: str, gain: float, baseline: int) -> Any:
    """Return the definition of one channel."""
    import pydicom

    channel = pydicom.Dataset()
    channel.ChannelLabel = _short(lead)
    if lead in SCP_CODES:
        channel.ChannelSourceSequence = _coded(f"2:{SCP_CODES[lead]}", "MDC", f"Lead {lead}")
    else:
        channel.ChannelSourceSequence = _coded(_short(lead), "99ANYECG", _short(lead))
    status = [] if record.gain_known else ["UNCALIBRATED"]
    if lead in record.restored:
        status.append("QUESTIONABLE")
        channel.ChannelDerivationDescription = "Generated by a model, not measured"
    elif lead in record.derived:
        channel.ChannelDerivationDescription = "Computed from other leads"
    channel.ChannelStatus = status or ["OK"]
    channel.ChannelSensitivity = _decimal(1 / gain)
    channel.ChannelSensitivityUnitsSequence = _coded("mV", "UCUM", "millivolt", CODING_VERSION)
    channel.ChannelSensitivityCorrectionFactor = "1"
    channel.ChannelBaseline = _decimal(-baseline / gain)
    channel.ChannelSampleSkew = "0"
    channel.WaveformBitsStored = 16
    return channel


def _coded(value: str, scheme: str, meaning: str, version: str = "") -> Any:
    """Return a code sequence of one item."""
    import pydicom

    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    if version:
        item.CodingSchemeVersion = version
    return pydicom.Sequence([item])


def _short(lead: str) -> str:
    """Return a lead's name as a DICOM short string: 16 characters, no backslash, which separates values."""
    return " ".join(lead.replace("\\", "/").split())[:16].strip()


def _decimal(value: float) -> str:
    """Return a DICOM decimal string: the nearest number of at most 16 characters."""
    for digits in range(17, 0, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= 16:
            return text
    raise AssertionError(value)
