"""What a DICOM ECG says about its waveform: statements, and the beginnings and ends of waves (PS3.3 C.10.10)."""

import re
from typing import Any

from anyecg.leads import standard_name
from anyecg.readers.edf_notes import between
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
    ours = any(_text(a).startswith(SIGNATURE) for a in said)
    found: list[Annotation] = []
    if not ours:  # our own remarks go into the fields of the record that they are about
        texts = dict.fromkeys(_text(a) for a in said if _text(a) and not _positions(a))
        found += [Annotation(start_s, end_s, "note", text) for text in texts]
    in_group: dict[int, list[tuple[int, str, str | None]]] = {}
    for one in said:
        channels = [int(value) for value in _values(one, "ReferencedWaveformChannels")]
        code = _FIDUCIALS.get(_code(one))
        if code and channels[::2] and set(channels[::2]) == {number}:
            lead = leads[channels[1] - 1] if len(channels) == 2 and 0 < channels[1] <= len(leads) else None
            points = in_group.setdefault(int(one.get("AnnotationGroupNumber") or 0), [])
            points += [(position, code, lead) for position in _positions(one)]
    for points in in_group.values():
        if points and max(position for position, _, _ in points) > n_median:
            for position, code, lead in points:
                at_s = (position - 1) / rate  # "the position of the first sample is 1" (0040,A132)
                found.append(Annotation(at_s, at_s, "fiducial", code, standard_name(lead) if lead else None))
    found.sort(key=lambda a: (a.kind != "note", a.start_s))
    return between(found, start_s, end_s)


def _text(annotation: Any) -> str:
    return " ".join(str(annotation.get("UnformattedTextValue") or "").split())


def _values(annotation: Any, keyword: str) -> list[Any]:
    value = annotation.get(keyword)
    if value is None:
        return []
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]


def _positions(annotation: Any) -> list[int]:
    return [int(value) for value in _values(annotation, "ReferencedSamplePositions")]


def _code(annotation: Any) -> str:
    concept = annotation.get("ConceptNameCodeSequence")
    value = str(concept[0].get("CodeValue") or "") if concept else ""
    scheme = str(concept[0].get("CodingSchemeDesignator") or "") if concept else ""
    return value if re.fullmatch(r"SCPECG|SCP-ECG", scheme) else ""
