"""What a DICOM ECG says about its waveform: statements, and the beginnings and ends of waves (PS3.3 C.10.10)."""

import re
from typing import Any

import numpy as np

from anyecg.leads import standard_name
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


CHANNELS, POSITIONS, GROUP, TEXT = 0x0040A0B0, 0x0040A132, 0x0040A180, 0x00700006
"""Tags of Referenced Waveform Channels (US), Referenced Sample Positions (UL), Annotation Group Number (US) and
Unformatted Text Value (ST)."""


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
    said = [a for a in dataset.get("WaveformAnnotationSequence") or [] if len(a)]
    texts = [(_text(a), a) for a in said if TEXT in a]
    ours = any(text.startswith(SIGNATURE) for text, _ in texts)
    found: list[Annotation] = []
    if not ours:  # our own remarks go into the fields of the record that they are about
        remarks = dict.fromkeys(text for text, one in texts if text and not _positions(one))
        found += [Annotation(start_s, end_s, "note", text) for text in remarks]
    in_group: dict[int, list[Any]] = {}
    for one in said:
        if POSITIONS in one:
            in_group.setdefault(next(iter(_integers(one, GROUP)), 0), []).append(one)
    for members in in_group.values():
        points: list[tuple[int, str, str | None]] = []
        # Whole groups are left out by their positions alone: the rest of an element takes pydicom its time.
        for one in members if max(max(_positions(one), default=0) for one in members) > n_median else ():
            channels = _integers(one, CHANNELS)
            if set(channels[::2]) == {number} and (code := _FIDUCIALS.get(_code(one))):
                lead = leads[channels[1] - 1] if len(channels) == 2 and 0 < channels[1] <= len(leads) else None
                points += [(position, code, lead) for position in _positions(one)]
        if points and max(position for position, _, _ in points) > n_median:
            for position, code, lead in points:
                at_s = (position - 1) / rate  # "the position of the first sample is 1" (0040,A132)
                found.append(Annotation(at_s, at_s, "fiducial", code, standard_name(lead) if lead else None))
    found.sort(key=lambda a: (a.kind != "note", a.start_s))
    return between(found, start_s, end_s)


def _text(annotation: Any) -> str:
    return " ".join(str(annotation.get("UnformattedTextValue") or "").split())


def _integers(annotation: Any, tag: int) -> list[int]:
    """Return the values of an element of binary integers, unpacked here where pydicom has not done so yet."""
    if tag not in annotation:
        return []
    element = annotation.get_item(tag)
    value = element.value
    if value is None:
        return []
    if isinstance(value, bytes):
        dtype = np.dtype("u4" if tag == POSITIONS else "u2").newbyteorder("<" if element.is_little_endian else ">")
        return np.frombuffer(value, dtype, len(value) // dtype.itemsize).tolist()
    return [int(one) for one in value] if hasattr(value, "__iter__") else [int(value)]


def _positions(annotation: Any) -> list[int]:
    return _integers(annotation, POSITIONS)


def _code(annotation: Any) -> str:
    concept = annotation.get("ConceptNameCodeSequence")
    value = str(concept[0].get("CodeValue") or "") if concept else ""
    if value not in _FIDUCIALS:
        return ""
    return value if re.fullmatch(r"SCPECG|SCP-ECG", str(concept[0].get("CodingSchemeDesignator") or "")) else ""
