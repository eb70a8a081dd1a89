"""WFDB with its signals in FLAC, without loss: NAME.hea, NAME.flac (format 516) and NAME.atr if there are marks.

A FLAC stream holds eight channels (RFC 9639, 9.1.3), so that more leads lie in NAME_1.flac, NAME_2.flac ...
Signal format 516: https://physionet.org/physiotools/wag/signal-5.htm
"""

from pathlib import Path

from anyecg.record import Record
from anyecg.writers import wfdb_record
from anyecg.writers.counts import to_counts

MAX_CHANNELS = 8

STREAM_HZ = 96_000
"""FLAC wants a rate from its own list; the header states the true one (so does the WFDB library)."""

losses, stale = wfdb_record.losses, wfdb_record.stale


def files(record: Record, path: Path) -> list[Path]:
    """Return the files that are written, the header last."""
    signal_files = dict.fromkeys(_stored_in(record, wfdb_record.record_name(path)))
    return wfdb_record.named(record, path, list(signal_files))


def write(record: Record, folder: Path, path: Path) -> None:
    """Write the record's files into ``folder``, with the gains of uncompressed WFDB."""
    import soundfile

    name = wfdb_record.record_name(path)
    counts, gains, baselines = to_counts(record)
    stored = _stored_in(record, name)
    for file in dict.fromkeys(stored):
        rows = [index for index, own in enumerate(stored) if own == file]
        soundfile.write(folder / file, counts[rows].T, STREAM_HZ, subtype="PCM_16", format="FLAC")
    scales = list(zip(gains, baselines, strict=True))
    wfdb_record.write_header(record, folder, name, counts, scales, [(file, 516) for file in stored])


def _stored_in(record: Record, name: str) -> list[str]:
    """Return the signal file of each lead."""
    if record.n_leads <= MAX_CHANNELS:
        return [f"{name}.flac"] * record.n_leads
    return [f"{name}_{index // MAX_CHANNELS + 1}.flac" for index in range(record.n_leads)]
