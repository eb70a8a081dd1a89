"""HL7 annotated ECG (ANSI/HL7 V3 ECG R1-2004, PORT_MT020001; FDA's aECG implementation guide, 2005).

One rhythm series; times as ``GLIST_TS`` from the start time on, or as ``GLIST_PQ`` from 0 s on if that is not known; a
lead as ``SLIST_PQ``: value = origin + scale * digit, in uV.

A digit is an integer and none stands for "not recorded". The smallest int16 is written, as devices do for a lead that
is off, and as our reader takes it.
"""

import re
import uuid
from datetime import datetime, timedelta
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

import numpy as np

from anyecg import __version__
from anyecg.record import Record
from anyecg.writers import limits, notes
from anyecg.writers.codes import mdc_name
from anyecg.writers.counts import MISSING_COUNT, gains_of, refuse_long_text, to_counts

MDC = {"codeSystem": "2.16.840.1.113883.6.24", "codeSystemName": "MDC"}
ACT = {"codeSystem": "2.16.840.1.113883.5.4", "codeSystemName": "ActCode"}
LOINC = {"codeSystem": "2.16.840.1.113883.6.1", "codeSystemName": "LOINC"}
CPT = {"codeSystem": "2.16.840.1.113883.6.12", "codeSystemName": "CPT-4"}
GENDER = "2.16.840.1.113883.5.1"

OWN_LEADS = {"codeSystemName": "AnyECG"}
"""Of a lead without a code of MDC."""

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 (2.2) cannot say."""


def files(record: Record, path: Path) -> list[Path]:
    """Return the one file that is written."""
    return [path]


def losses(record: Record) -> list[str]:
    """Return what an aECG does not hold of the record, a line each."""
    lines = limits.coarse_steps(record, [1 / gain for gain in gains_of(record)])
    lines += limits.gaps(record, f"{MISSING_COUNT}: other programs show a rail")
    lines += limits.lead_names(record, [_plain(lead) for lead in record.leads])
    if record.start_time is None:
        lines.append("the start time is not known, but an aECG asks for one: times count from 0 s")
    return lines + limits.source_rate(record) + limits.annotations(record)


def write(record: Record, folder: Path, path: Path) -> None:
    """Write the document into ``folder`` under the name of ``path``.

    Raises
    ------
    WriteError
        The record is too long for one document.
    """
    refuse_long_text(record, path)
    root = document(record)
    indent(root, " ")
    ElementTree(root).write(folder / path.name, encoding="utf-8", xml_declaration=True)


def document(record: Record) -> Element:
    """Return the document's root."""
    root = Element(
        "AnnotatedECG",
        {
            "xmlns": "urn:hl7-org:v3",
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "type": "Observation",
            "classCode": "OBS",
            "moodCode": "EVN",
        },
    )
    SubElement(root, "id", root=str(uuid.uuid4()))
    _code(root, "93000", CPT, "Electrocardiogram")
    _period(root, record)
    _subject(root, record)
    for code, name, value, unit in (
        ("21612-7", "Reported Age", record.age, "a"),
        ("29463-7", "Body weight", record.weight_kg, "kg"),
    ):
        if value is not None:
            related = _path(root, "controlVariable", "relatedObservation", OBS)
            _code(related, code, LOINC, name)
            SubElement(related, "value", {"xsi:type": "PQ", "value": f"{value:.12g}", "unit": unit})
    series = _path(root, "component", "series", {"classCode": "OBSSER", "moodCode": "EVN"})
    SubElement(series, "id", root=str(uuid.uuid4()))
    _code(series, "RHYTHM", ACT, "ECG Rhythm Waveforms")
    _period(series, record)
    author = _path(series, "author", "seriesAuthor", {"classCode": "MANU"})
    device = SubElement(author, "manufacturedSeriesDevice", classCode="DEV", determinerCode="INSTANCE")
    SubElement(device, "softwareName").text = f"AnyECG {__version__}"
    _sequences(series, record)
    _remarks(series, record)
    return root


OBS = {"classCode": "OBS", "moodCode": "EVN"}


def _path(parent: Element, link: str, name: str, attributes: dict[str, str]) -> Element:
    """Append ``<link><name .../></link>`` and return the inner element."""
    return SubElement(SubElement(parent, link), name, attributes)


def _code(parent: Element, code: str, system: dict[str, str], name: str = "") -> None:
    """Append the code of an element."""
    SubElement(parent, "code", {"code": code, **system, **({"displayName": name} if name else {})})


def _period(parent: Element, record: Record) -> None:
    """Append the time from the first sample to the end of the last, if it is known."""
    if record.start_time is None:
        SubElement(parent, "effectiveTime", nullFlavor="UNK")
        return
    period = SubElement(parent, "effectiveTime")
    end = record.start_time + timedelta(seconds=record.duration_s)
    SubElement(period, "low", value=_time(record.start_time), inclusive="true")
    SubElement(period, "high", value=_time(end), inclusive="false")


def _time(time: datetime) -> str:
    """Return an HL7 TS to a microsecond, with its zone if it has one."""
    return time.strftime("%Y%m%d%H%M%S.%f") + time.strftime("%z")[:5]


def _subject(root: Element, record: Record) -> None:
    """Append the trial's subject: an aECG hangs on one. Nothing but the sex is said of the person."""
    event = _path(root, "componentOf", "timepointEvent", {"classCode": "CTTEVENT", "moodCode": "EVN"})
    SubElement(event, "code", nullFlavor="UNK")
    assignment = _path(event, "componentOf", "subjectAssignment", {"classCode": "CLNTRL", "moodCode": "EVN"})
    subject = _path(assignment, "subject", "trialSubject", {"classCode": "RESBJ"})
    SubElement(subject, "id", nullFlavor="UNK")
    person = SubElement(subject, "subjectDemographicPerson", classCode="PSN", determinerCode="INSTANCE")
    if record.sex is not None:
        code = {"male": "M", "female": "F"}[record.sex]
        SubElement(
            person, "administrativeGenderCode", code=code, codeSystem=GENDER, displayName=record.sex.capitalize()
        )
    trial = _path(assignment, "componentOf", "clinicalTrial", {"classCode": "CLNTRL", "moodCode": "EVN"})
    SubElement(trial, "id", nullFlavor="UNK")


def _sequences(series: Element, record: Record) -> None:
    """Append the sequence of times and those of the leads."""
    counts, gains, baselines = to_counts(record)
    group = _path(series, "component", "sequenceSet", {"classCode": "OBSCOR", "moodCode": "EVN"})
    times = _path(group, "component", "sequence", OBS)
    if record.start_time is None:
        _code(times, "TIME_RELATIVE", ACT)
        value = SubElement(times, "value", {"xsi:type": "GLIST_PQ"})
        SubElement(value, "head", value="0", unit="s")
    else:
        _code(times, "TIME_ABSOLUTE", ACT)
        value = SubElement(times, "value", {"xsi:type": "GLIST_TS"})
        SubElement(value, "head", value=_time(record.start_time))
    SubElement(value, "increment", value=_decimal(1 / record.fs), unit="s")
    for lead, row, gain, baseline in zip(record.leads, counts, gains, baselines, strict=True):
        sequence = _path(group, "component", "sequence", OBS)
        name, lead = mdc_name(lead), _plain(lead)
        if name is None:
            _code(sequence, f"ANYECG_ECG_LEAD_{lead}", OWN_LEADS, lead)
        else:
            _code(sequence, name, MDC, lead)
        value = SubElement(sequence, "value", {"xsi:type": "SLIST_PQ"})
        SubElement(value, "origin", value=_decimal(-1000 * baseline / gain), unit="uV")
        SubElement(value, "scale", value=_decimal(1000 / gain), unit="uV")
        SubElement(value, "digits").text = " ".join(map(str, row.tolist()))


def _decimal(value: float) -> str:
    """Return the shortest decimal that reads back as the same float, without an exponent."""
    return np.format_float_positional(value, unique=True, trim="-")


def _remarks(series: Element, record: Record) -> None:
    """Append what the schema has no element for, as comments of the interpretation."""
    group = _path(series, "subjectOf", "annotationSet", OBS)
    author = _path(group, "author", "assignedEntity", {"classCode": "ASSIGNED"})
    device = _path(author, "assignedAuthorType", "assignedDevice", {"classCode": "DEV", "determinerCode": "INSTANCE"})
    SubElement(device, "softwareName").text = f"AnyECG {__version__}"
    # Programs tend to cut the age to whole years, and few read a weight.
    for line in notes.signed(record, person=("age", "weight_kg")):
        annotation = _path(group, "component", "annotation", OBS)
        _code(annotation, "MDC_ECG_INTERPRETATION_COMMENT", MDC)
        SubElement(annotation, "value", {"xsi:type": "ST"}).text = _plain(line)


def _plain(text: str) -> str:
    """Return a text without what XML cannot say."""
    return _NOT_XML.sub("_", text)
