"""What a DICOM ECG says about its waveform: statements, and the beginnings and ends of waves (PS3.3 C.10.10)."""

from typing import Any

from anyecg.leads import standard_name
from anyecg.readers.dicom.values import integers, text
from anyecg.readers.edf.notes import between
from anyecg.readers.notes import SIGNATURE
from anyecg.record import Annotation

_FIDUCIALS = {
    "5.10.3-1": "P_ON",
    "5.10.3-2": "P_OFF",
    "5.10.3-3": "QRS_ON",
    "5.10.3-4": "QRS_OFF",
    "5.10.3-5": "T_OFF",
}
"""SCP-ECG codes of points in time (PS3.16 CID 3335), and ours."""


CHANNELS, POSITIONS, GROUP, CONCEPT = 0x0040A0B0, 0x0040A132, 0x0040A180, 0x0040A043
"""Tags of Referenced Waveform Channels (US), Referenced Sample Positions (UL), Annotation Group Number (US) and
Concept Name Code Sequence."""

TEXT, CODE_VALUE, SCHEME = 0x00700006, 0x00080100, 0x00080102
"""Unformatted Text Value (ST); Code Value and Coding Scheme Designator of a concept."""


def annotations_of(dataset: Any, group: Any, leads: list[str], start_s: float, end_s: float) -> tuple[Annotation, ...]:
    """Return statements about the whole record as notes, and points of waves as fiducials, of a slice.

    Devices say of a median beat's points, too, that they are of the rhythm. Where the file has a median beat, the
    annotation groups that lie wholly within its length are therefore left out.

    Parameters
    ----------
    dataset : pydicom.Dataset
    group : pydicom.Dataset
        The multiplex group that the record's time counts from.
    leads : list of str
        Of the group's channels.
    start_s, end_s : float
        Of the slice.
    """
    groups = list(dataset.WaveformSequence)
    number = 1 + next(i for i, one in enumerate(groups) if one is group)
    rate = float(group.SamplingFrequency)
    derived = [g for g in groups if str(g.get("WaveformOriginality") or "") == "DERIVED"]
    n_median = max((int(g.NumberOfWaveformSamples) for g in derived), default=0)
    said = [(one, integers(one, POSITIONS, 4)) for one in dataset.get("WaveformAnnotationSequence") or [] if len(one)]
    texts = [(_text(one), positions) for one, positions in said if TEXT in one]
    ours = any(remark.startswith(SIGNATURE) for remark, _ in texts)
    found: list[Annotation] = []
    if not ours:  # our own remarks go into the fields of the record that they are about
        remarks = dict.fromkeys(remark for remark, positions in texts if remark and not positions)
        found += [Annotation(start_s, end_s, "note", remark) for remark in remarks]
    in_group: dict[int, list[tuple[Any, list[int]]]] = {}
    for one, positions in said:
        if positions:
            in_group.setdefault(next(iter(integers(one, GROUP, 2)), 0), []).append((one, positions))
    for members in in_group.values():
        points: list[tuple[int, str, str | None]] = []
        # Whole groups are left out by their positions alone: the rest of an element takes pydicom its time.
        for one, positions in members if max(max(positions) for _, positions in members) > n_median else ():
            channels = integers(one, CHANNELS, 2)
            if set(channels[::2]) == {number} and (code := _FIDUCIALS.get(_code(one))):
                lead = leads[channels[1] - 1] if len(channels) == 2 and 0 < channels[1] <= len(leads) else None
                points += [(position, code, lead) for position in positions]
        if points and max(position for position, _, _ in points) > n_median:
            for position, code, lead in points:
                at_s = (position - 1) / rate  # "the position of the first sample is 1" (0040,A132)
                found.append(Annotation(at_s, at_s, "fiducial", code, standard_name(lead) if lead else None))
    found.sort(key=lambda a: (a.kind != "note", a.start_s))
    return between(found, start_s, end_s)


def _text(annotation: Any) -> str:
    return " ".join(str(annotation.get("UnformattedTextValue") or "").split())


def _code(annotation: Any) -> str:
    concept = annotation.get(CONCEPT)
    if concept is None or not concept.value:
        return ""
    value = text(concept.value[0], CODE_VALUE)
    if value not in _FIDUCIALS:
        return ""
    return value if text(concept.value[0], SCHEME) in ("SCPECG", "SCP-ECG") else ""
