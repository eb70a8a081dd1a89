"""Corrupted lead generation, measured: precordial leads of test patients restored from fewer leads.

The model restores as `anyecg.tasks.restore` says: with the head ``restorer`` if its checkpoint has it. Precordial leads
only: limb leads follow from two others by algebra and would inflate the mean. Baseline: linear regression of each
missing lead on the present ones, sample by sample, fitted on training patients. It is strong: the heart's field is
nearly that of a dipole, of which three leads see three components.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.engine import Model
from anyecg.leads import PRECORDIAL_LEADS, STANDARD_LEADS
from anyecg.metrics import patient_bootstrap, pearson_r
from anyecg.record import Record
from anyecg.tasks.restore import restore
from anyecg.training.datasets import SUPERCLASS_DATABASE, Corpus, Entry

GIVEN = {
    **{"I": ("I",), "I, II": ("I", "II"), "I, II, V2": ("I", "II", "V2")},
    **{"all but V3": tuple(name for name in STANDARD_LEADS if name != "V3")},
}
N_TRAIN = 600
"""Training records the regression is fitted on: 600 x 3,000 samples for at most 11 weights."""


def evaluate_restoration(model: Model, folder: Path, _data: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Restore precordial leads of every clean 12-lead test record from each set of given leads.

    Returns
    -------
    dict
        Per set of given leads: r (mean and median over records and leads, patient bootstrap) and RMSE in mV of the
        model and of linear regression, and the share of samples inside the model's 5-95 % band. JSON-ready.
    """
    fs_hz = model.checkpoint.grid.fs_hz
    train = [r for _, r in twelve_lead(Corpus(folder, "train", (SUPERCLASS_DATABASE,)), fs_hz)][:N_TRAIN]
    test = list(twelve_lead(Corpus(folder, "test", (SUPERCLASS_DATABASE,)), fs_hz))
    by_given = {}
    for name, given in GIVEN.items():
        progress(f"restoring precordial leads from {name}")
        missing = tuple(lead for lead in PRECORDIAL_LEADS if lead not in given)
        weights = fit_regression(train, given, missing)
        rows: list[dict[str, Any]] = []
        for entry, record in test:
            found = restore(record.pick(given), model, missing)
            truth, restored = record.pick(missing).signal, found.record.pick(missing).signal
            regressed = weights @ record.pick(given).signal
            at = [found.record.leads.index(lead) for lead in missing]
            inside = (found.low_mv[at] <= truth) & (truth <= found.high_mv[at])
            for i, lead in enumerate(missing):
                rows.append(
                    {
                        **{"patient": entry.patient, "lead": lead, "inside": float(inside[i].mean())},
                        **{"r": pearson_r(truth[i], restored[i]), "rmse": _rmse(truth[i], restored[i])},
                        **{"linear_r": pearson_r(truth[i], regressed[i]), "linear_rmse": _rmse(truth[i], regressed[i])},
                    }
                )
        by_given[name] = _summary(rows)
    return {
        "split": f"{SUPERCLASS_DATABASE} test patients, clean records; regression fitted on train",
        "n_records": len(test),
        "n_patients": len({entry.patient for entry, _ in test}),
        "given": by_given,
    }


def twelve_lead(corpus: Corpus, fs_hz: float) -> list[tuple[Entry, Record]]:
    """Return the clean records that have the standard 12 leads without a gap."""
    chosen = [e for e in corpus.entries if e.clean and tuple(e.leads) == STANDARD_LEADS]
    records = [(e, corpus.record(e, fs_hz)) for e in chosen]
    return [(e, record) for e, record in records if np.isfinite(record.signal).all()]


def fit_regression(train: list[Record], given: tuple[str, ...], missing: tuple[str, ...]) -> np.ndarray:
    """Return the least-squares weights (n_missing, n_given) of the missing leads on the given ones, in mV."""
    gram = np.zeros((len(given), len(given)))
    cross = np.zeros((len(missing), len(given)))
    for record in train:
        x, y = record.pick(given).signal.astype(np.float64), record.pick(missing).signal.astype(np.float64)
        gram += x @ x.T
        cross += y @ x.T
    return cross @ np.linalg.pinv(gram, rcond=1e-6)


def _rmse(truth: np.ndarray, estimate: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(truth - estimate))))


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    patients = np.array([row["patient"] for row in rows])
    values = {key: np.array([row[key] for row in rows]) for key in ("r", "linear_r", "rmse", "linear_rmse", "inside")}
    summary: dict[str, Any] = {"n": len(rows)}
    for key in ("r", "linear_r"):
        low, high = patient_bootstrap(lambda chosen, v=values[key]: float(np.nanmean(v[chosen])), patients)  # type: ignore[misc]
        summary[key] = {
            "mean": round(float(np.nanmean(values[key])), 4),
            "interval": [round(low, 4), round(high, 4)],
            "median": round(float(np.nanmedian(values[key])), 4),
        }
    for key in ("rmse", "linear_rmse", "inside"):
        summary[key] = round(float(values[key].mean()), 4)
    return summary
