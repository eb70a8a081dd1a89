"""The one-class baselines of the row ``anomaly``: all fitted on the same normal training records.

Mahalanobis distance and isolation forest on classical features, for any leads; for 12 leads also a convolutional
autoencoder on the signal, the PCA residual of the tokenizer's code vectors, and our own distance on what an encoder of
random weights makes of the same codes.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from baselines.classical_features import FEATURE_NAMES, record_features

from anyecg.engine import Model
from anyecg.leads import STANDARD_LEADS
from anyecg.training.datasets import NORMAL, Corpus, Entry
from anyecg.training.normal import MOST_NORMAL

Progress = Callable[[str], None]

BASELINES = (
    "Mahalanobis, classical features",
    "isolation forest, classical features",
    "convolutional autoencoder",
    "PCA residual, tokenizer features",
    "our encoder, untrained",
)


def normal_entries(prepared: Path, split: str) -> list[Entry]:
    """Return the normal records the model's own references were fitted on (train) or set to scale by (val)."""
    corpus = Corpus(prepared, split, ("ptb-xl",))
    return [e for e in corpus.entries if e.labels == NORMAL and e.clean][:MOST_NORMAL]


def baseline_scores(
    model: Model,
    prepared: Path,
    test: list[Entry],
    leads: tuple[str, ...],
    work: Path,
    progress: Progress,
    kept_as: str = "test",
) -> dict[str, list[float]]:
    """Fit each baseline on normal training records; score others, whose features are kept in ``work`` under a name.

    The deep ones are for 12 leads of the database they were fitted on only.
    """
    from sklearn.covariance import LedoitWolf
    from sklearn.ensemble import IsolationForest

    train = normal_entries(prepared, "train")
    x_train = _features(model, prepared, "train", train, leads, work, progress)
    x_test = _features(model, prepared, kept_as, test, leads, work, progress)
    # Without the record's length, and without the second copy of the best lead where leads have names.
    wanted = np.array([n != "beats" and not (n.startswith("best_") and len(leads) > 2) for n in FEATURE_NAMES])
    there = wanted & (np.isfinite(x_train).mean(axis=0) > 0.5)
    middle, spread = np.nanmean(x_train[:, there], axis=0), np.nanstd(x_train[:, there], axis=0) + 1e-3
    # Six spreads at most: a misplaced mark must not outweigh all else (on validation records this helped a little).
    x_train, x_test = (np.clip(np.nan_to_num((x[:, there] - middle) / spread), -6, 6) for x in (x_train, x_test))
    scores = {
        BASELINES[0]: LedoitWolf().fit(x_train).mahalanobis(x_test),
        BASELINES[1]: -IsolationForest(n_estimators=500, random_state=0).fit(x_train).score_samples(x_test),
    }
    if leads == STANDARD_LEADS and kept_as == "test":
        scores |= _deep_baselines(model, prepared, train, test, work, progress)
    return {name: np.asarray(s, dtype=np.float64).tolist() for name, s in scores.items()}


def _features(
    model: Model,
    prepared: Path,
    kept_as: str,
    entries: list[Entry],
    leads: tuple[str, ...],
    work: Path,
    progress: Progress,
) -> np.ndarray:
    """Return classical features of the records through some leads, (n, n_features)."""
    part = work / f"features_{kept_as}_{'_'.join(leads)}.npy"
    if part.exists() and len(kept := np.load(part)) == len(entries):
        return np.asarray(kept)
    progress(f"classical features, {kept_as}, {len(leads)} leads")
    rows, corpora = [], {key: Corpus(prepared, key[1], (key[0],)) for key in {(e.database, e.split) for e in entries}}
    for e in entries:
        record = corpora[e.database, e.split].record(e, model.checkpoint.grid.fs_hz).pick(leads)
        rows.append(record_features(record))
    features = np.stack(rows)
    assert features.shape[1] == len(FEATURE_NAMES)
    np.save(part, features)
    return features


def _deep_baselines(
    model: Model, prepared: Path, train: list[Entry], test: list[Entry], work: Path, progress: Progress
) -> dict[str, np.ndarray]:
    """Autoencoder on the signal; residual and distance on features of the tokenizer and of an untrained encoder."""
    part = work / "deep_baselines.npz"
    if not part.exists():
        from baselines.conv_autoencoder import reconstruction_errors, to_window

        validation = normal_entries(prepared, "val")
        windows = []
        for split, entries in (("train", train), ("val", validation), ("test", test)):
            corpus = Corpus(prepared, split, ("ptb-xl",))
            windows.append(np.stack([to_window(corpus.signal(e)) for e in entries]))
        (errors,) = reconstruction_errors(windows[0], windows[1], [windows[2]], progress)
        shown = {split: _code_features(model, prepared, split, e) for split, e in (("train", train), ("test", test))}
        pca = _pca_residual(shown["train"][0], shown["test"][0])
        untrained = _factor_distance(shown["train"][1], shown["test"][1])
        np.savez(part, **dict(zip(BASELINES[2:], (errors, pca, untrained), strict=True)))
    with np.load(part) as stored:
        return {name: stored[name] for name in BASELINES[2:]}


def _code_features(model: Model, prepared: Path, split: str, entries: list[Entry]) -> tuple[np.ndarray, np.ndarray]:
    """Return each lead's mean code vectors (n, 12 * K * C), and what an encoder of random weights makes of the codes.

    The untrained encoder is ours, same sizes, same seed as the recipe; (n, 12 * D).
    """
    import torch

    from anyecg.models.encoder import Encoder
    from anyecg.models.export import load_networks
    from anyecg.training.probe import lead_means

    tokenizer, trained = load_networks(model.checkpoint.folder)
    torch.manual_seed(0)
    encoder = Encoder(trained.config, tokenizer.config, tokenizer.quantizer.codebooks).eval()
    corpus, vectors, layers = Corpus(prepared, split, ("ptb-xl",)), [], []
    with torch.no_grad():
        for e in entries:
            windows = model.windows(model.tokenize(corpus.record(e, model.checkpoint.grid.fs_hz)))
            codes, valid, mask, lead_ids, log_scale, known = (
                torch.from_numpy(getattr(windows, name)[:1])
                for name in ("codes", "valid", "mask", "lead_ids", "log_scale", "scale_known")
            )
            vectors.append(lead_means(tokenizer.quantizer.lookup(codes), valid))
            layers.append(lead_means(encoder(codes, valid, mask, lead_ids, log_scale, known)[-1], valid))
    return torch.cat(vectors).numpy(), torch.cat(layers).numpy()


def _pca_residual(train: np.ndarray, test: np.ndarray, n_components: int = 64) -> np.ndarray:
    """Return what the first principal components of normal records leave of each standardised test vector."""
    middle, spread = train.mean(axis=0), train.std(axis=0) + 1e-4
    z, z_test = (train - middle) / spread, (test - middle) / spread
    directions = np.linalg.svd(z, full_matrices=False)[2][:n_components]
    return np.linalg.norm(z_test - (z_test @ directions.T) @ directions, axis=1)


def _factor_distance(train: np.ndarray, test: np.ndarray, n_factors: int = 96, noise: float = 0.3) -> np.ndarray:
    """Return the distance our own score uses, on other features."""
    middle, spread = train.mean(axis=0), train.std(axis=0) + 1e-4
    z, z_test = (train - middle) / spread, (test - middle) / spread
    _, sizes, directions = np.linalg.svd(z, full_matrices=False)
    w = directions[:n_factors].T * (sizes[:n_factors] / np.sqrt(len(z)))
    along = z_test @ w
    inner = np.linalg.inv(noise * np.eye(w.shape[1]) + w.T @ w)
    return (np.square(z_test).sum(axis=1) - np.einsum("nf,fg,ng->n", along, inner, along)) / noise
