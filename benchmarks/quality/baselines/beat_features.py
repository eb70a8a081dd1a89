"""Beat classes as in the literature: RR intervals and samples of the wave, as they are; LDA, and gradient boosting.

Features after de Chazal 2004 (doi:10.1109/TBME.2004.827359), table II, FS1 of each lead: RR intervals before and after,
their mean over ten beats and over the record, and samples of the QRS complex and the T wave. Departures: marked R peaks
only, so that instead of found onsets and offsets fixed windows about the R peak give the samples; no P wave flag and no
QRS and T duration; both leads in one classifier instead of two whose votes are joined. Nothing is set beside a beat of
the record itself: that is what our head adds.
"""

from typing import Any

import numpy as np

from anyecg.record import Record

QRS_S = np.linspace(-0.05, 0.10, 10)
T_S = np.linspace(0.15, 0.45, 9)
LOCAL_BEATS = 10


def raw_features(record: Record, at_s: np.ndarray) -> np.ndarray:
    """Return RR intervals in seconds and samples in mV of each beat, float32 (n, 4 + 19 n_leads)."""
    rr = np.clip(np.diff(at_s), 0.15, 4.0)
    before, after = np.concatenate([rr[:1], rr]), np.concatenate([rr, rr[-1:]])
    local = np.convolve(
        np.pad(before, (LOCAL_BEATS - 1, 0), mode="edge"), np.full(LOCAL_BEATS, 1 / LOCAL_BEATS), "valid"
    )
    times = at_s[:, None] + np.concatenate([QRS_S, T_S])
    at = np.clip(np.round(times * record.fs).astype(int), 0, record.n_samples - 1)
    waves = np.nan_to_num(record.signal[:, at]).transpose(1, 0, 2).reshape(len(at_s), -1)
    intervals = np.stack([before, after, local, np.full(len(at_s), rr.mean())], axis=1)
    return np.concatenate([intervals, waves], axis=1).astype(np.float32)


def make_lda(n_classes: int) -> Any:
    """Return linear discriminants with equal priors, as in the paper."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(priors=np.full(n_classes, 1 / n_classes)))


def make_boosting(n_classes: int) -> Any:
    """Return gradient-boosted trees."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=80, max_leaf_nodes=8, min_samples_leaf=40, l2_regularization=5, early_stopping=False, random_state=0
    )


BASELINES = {"RR + samples, LDA": make_lda, "RR + samples, boosting": make_boosting}

KEPT_NORMAL = 4
"""One normal beat in so many is learned from, and counts so many times: boosting takes a quarter of the time."""


def fit_predict(make: Any, x: np.ndarray, classes: np.ndarray, x_asked: np.ndarray) -> np.ndarray:
    """Fit on beats (n, F) of known classes (n,); return probabilities (m, 5) of others."""
    rare = (classes != 0) | (np.arange(len(classes)) % KEPT_NORMAL == 0)
    model, weights = make(len(np.unique(classes))), {}
    if make is make_boosting:
        weights["sample_weight"] = np.where(classes[rare] == 0, float(KEPT_NORMAL), 1.0)
    model.fit(x[rare], classes[rare], **weights)
    p = np.zeros((len(x_asked), 5))
    p[:, model.classes_] = model.predict_proba(x_asked)
    return p
