"""WFDB: NAME.hea, NAME.dat (format 16) and, if there are beats or rhythms, NAME.atr."""

import re
import warnings
from math import isfinite
from pathlib import Path

import numpy as np

from anyecg.record import Annotation, Record
from anyecg.writers import limits, notes
from anyecg.writers.counts import gains_of, to_counts


def files(record: Record, path: Path) -> list[Path]:
    """Return the files that are written, the header last: a record is there once its header is."""
    return named(record, path, [f"{record_name(path)}.dat"])


def named(record: Record, path: Path, signal_files: list[str]) -> list[Path]:
    """Return the paths of signal files, of annotations if there are any, and of the header."""
    name = record_name(path)
    marks = [f"{name}.atr"] if _marks(record) else []
    return [path.with_name(file) for file in (*signal_files, *marks, f"{name}.hea")]


def stale(record: Record, path: Path) -> list[Path]:
    """Return the annotation file that a reader would take for this record's although it has none."""
    return [] if _marks(record) else [path.with_name(f"{record_name(path)}.atr")]


def record_name(path: Path) -> str:
    """Return a name that WFDB allows: letters, digits, ``-`` and ``_``.

    Raises
    ------
    ValueError
        The path's name has other characters.
    """
    name = path.stem if path.suffix.lower() in (".hea", ".dat", ".atr") else path.name
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"the WFDB record name is {name!r}, allowed are letters, digits, '-' and '_'")
    return name


def losses(record: Record) -> list[str]:
    """Return what WFDB does not hold of the record, a line each."""
    lines = limits.coarse_steps(record, [1 / gain for gain in gains_of(record)])
    lines += limits.lead_names(record, [_lead_name(lead) for lead in record.leads])
    lines += limits.start_time(record) + limits.source_rate(record)
    lines += limits.annotations(record, lambda annotation: _is_mark(annotation, record) or _is_diagnosis(annotation))
    if any(_is_mark(annotation, record) and annotation.lead is not None for annotation in record.annotations):
        lines.append("the leads of beats and rhythms are left out")
    return lines


def write(record: Record, folder: Path, path: Path) -> None:
    """Write the record's files into ``folder``.

    Each lead has its own gain: the finest of 1, 2, 2.5, 4, 5, 8 times a power of ten with which its range fits into 16
    bits, so that a lead within +-32 mV is kept to 1 uV or finer.
    """
    name = record_name(path)
    counts, gains, baselines = to_counts(record)
    counts.T.astype("<i2").tofile(folder / f"{name}.dat")
    scales = list(zip(gains, baselines, strict=True))
    write_header(record, folder, name, counts, scales, [(f"{name}.dat", 16)] * record.n_leads)


def write_header(
    record: Record,
    folder: Path,
    name: str,
    counts: np.ndarray,
    scales: list[tuple[float, int]],
    stored: list[tuple[str, int]],
) -> None:
    """Write NAME.hea and, if there is something for it, NAME.atr.

    Parameters
    ----------
    record : Record
    folder : Path
    name : str
    counts : ndarray of int16, shape (n_leads, n_samples)
    scales : list of (float, int)
        Gain in units per mV and baseline of each lead.
    stored : list of (str, int)
        File and signal format of each lead.
    """
    lines = [_record_line(name, record)]
    for lead, row, (gain, baseline), (file, form) in zip(record.leads, counts, scales, stored, strict=True):
        checksum = int(row.sum(dtype=np.int64)) & 0xFFFF
        scale = f"{_number(gain)}({baseline})/mV"
        lines.append(f"{file} {form} {scale} 16 0 {int(row[0])} {checksum} 0 {_lead_name(lead)}")
    lines += [f"# {comment}" for comment in comments(record)]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    if marks := _marks(record):
        _write_marks(marks, folder, name)


def _lead_name(lead: str) -> str:
    """Return a lead's name without line breaks, which end a header's line."""
    return " ".join(lead.split()) or "lead"


def comments(record: Record) -> list[str]:
    """Return the header's comments: who, what is not measured, and what the reader had to bend."""
    codes = [a.code for a in record.annotations if _is_diagnosis(a)]
    diagnoses = [f"Dx: {','.join(dict.fromkeys(codes))}"] if codes else []
    return [*notes.about_person(record), *diagnoses, *notes.about_leads(record), *notes.bent(record)]


def _is_diagnosis(annotation: Annotation) -> bool:
    """Return whether ``Dx:`` can say it: a code of the whole record, said by the file."""
    return (
        annotation.kind == "diagnosis"
        and annotation.score is None
        and annotation.lead is None
        and bool(re.fullmatch(r"\d{6,18}", annotation.code))
    )


def _record_line(name: str, record: Record) -> str:
    """Return ``NAME LEADS RATE SAMPLES TIME DATE``."""
    line = f"{name} {record.n_leads} {_number(record.fs)} {record.n_samples}"
    if record.start_time is not None:
        line += record.start_time.strftime(" %H:%M:%S.%f %d/%m/%Y")
    return line


def _number(value: float) -> str:
    """Return the shortest decimal that reads back as the same float, without an exponent (wfdb reads none)."""
    if value == round(value):
        return str(int(value))
    return np.format_float_positional(value, unique=True, trim="-")


def _is_mark(annotation: Annotation, record: Record) -> bool:
    """Return whether NAME.atr can say it: a beat or a rhythm of the file's; what a model said is left out."""
    from anyecg.readers.wfdb.annotations import BEAT_SYMBOLS

    if annotation.score is not None or not isfinite(annotation.start_s):
        return False
    inside = 0 <= round(annotation.start_s * record.fs) < record.n_samples
    known = annotation.kind == "rhythm" or (annotation.kind == "beat" and annotation.code in BEAT_SYMBOLS)
    return inside and known


def _marks(record: Record) -> list[tuple[int, str, str]]:
    """Return ``(sample, symbol, note)`` of the file's beats and rhythms, in time."""
    told = [annotation for annotation in record.annotations if _is_mark(annotation, record)]
    starts = {round(annotation.start_s * record.fs) for annotation in told if annotation.kind == "rhythm"}
    marks: list[tuple[int, str, str]] = []
    for annotation in told:
        sample = round(annotation.start_s * record.fs)
        if annotation.kind == "beat":
            marks.append((sample, annotation.code, ""))
            continue
        marks.append((sample, "+", f"({annotation.code}"))
        end = round(annotation.end_s * record.fs) if isfinite(annotation.end_s) else record.n_samples
        if end < record.n_samples and end not in starts:  # WFDB rhythms end where the next begins: one without name
            marks.append((end, "+", "("))
    return sorted(marks, key=lambda mark: (mark[0], mark[1] != "+"))


def _write_marks(marks: list[tuple[int, str, str]], folder: Path, name: str) -> None:
    """Write NAME.atr through wfdb."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # wfdb 4.3 calls pandas in ways that this deprecates
        import wfdb

        wfdb.wrann(
            name,
            "atr",
            sample=np.array([sample for sample, _, _ in marks], dtype=np.int64),
            symbol=[symbol for _, symbol, _ in marks],
            aux_note=[note for _, _, note in marks],
            write_dir=str(folder),
        )
