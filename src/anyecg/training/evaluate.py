"""Measure a checkpoint on test patients: how much its codes keep, and what its encoder has learned.

Everything here runs on split ``test``; splits ``train`` and ``val`` only fit and choose probes. The tokenizer is
measured through the shipped graphs, as users get it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anyecg.beats import find_beats
from anyecg.engine import Model, load
from anyecg.leads import LIMB_LEADS, PRECORDIAL_LEADS
from anyecg.metrics import macro_auroc, match_events, patient_bootstrap, pearson_r, prd, usage_and_perplexity
from anyecg.models.encoder import Encoder
from anyecg.models.export import load_networks
from anyecg.record import Record
from anyecg.training.datasets import SUPERCLASS_DATABASE, SUPERCLASSES, Corpus, Entry, prepare_databases
from anyecg.training.labelled import evaluate_heads
from anyecg.training.masks import mixed_mask
from anyecg.training.meaning import evaluate_meaning
from anyecg.training.probe import (
    Windows,
    each_auroc,
    fit_probe,
    labelled_windows,
    layer_features,
    lead_means,
    sex_labels,
    standard_lead_ids,
    superclass_labels,
)
from anyecg.training.recipe import MaskSection
from anyecg.training.restoration import evaluate_restoration
from anyecg.training.robustness import evaluate_robustness

LONGEST_S = 60.0
"""Of each record the first minute is measured: a database of half-hour records would outweigh all others."""


def evaluate(
    what: str,
    checkpoint: str | Path,
    data: Path = Path("data"),
    splits: Path = Path("data/splits.csv"),
    progress: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure a checkpoint on test patients.

    Parameters
    ----------
    what : str
        One of `EVALUATIONS`.
    checkpoint : str or Path
        Name or folder.
    data, splits : Path
        The restored databases, and the CSV file of splits.
    progress : callable
        Takes one line.

    Returns
    -------
    dict
        JSON-ready numbers; `anyecg.training.card.tables` prints them.

    Raises
    ------
    ValueError
        ``what`` is none of them.
    """
    if what not in EVALUATIONS:
        raise ValueError(f"cannot evaluate {what!r}; allowed are {', '.join(EVALUATIONS)}")
    model = load(checkpoint)
    folder = prepare_databases(data, splits, model.checkpoint.preparation, progress)
    more = {"splits": splits} if what == "heads" else {}  # the labels that heads are held against name their split
    return EVALUATIONS[what](model, folder, data, progress, **more)


# -- tokenizer -----------------------------------------------------------------------------------------------


def evaluate_tokenizer(model: Model, folder: Path, _data: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Decode every test record from its codes and compare; also wavelet coding at the same bits a second."""
    corpus = Corpus(folder, "test")
    databases = sorted({e.database for e in corpus.entries})
    by_database = {}
    for database in databases:
        entries = [e for e in corpus.entries if e.database == database and e.clean]
        progress(f"{database}: {len(entries)} test records")
        by_database[database] = _decode_all(model, corpus, entries)
    return {
        "split": "test: patients no stage of training saw; records flagged too noisy by their database left out",
        "databases": by_database,
    }


def _decode_all(model: Model, corpus: Corpus, entries: list[Entry]) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    beats: list[dict[str, np.ndarray]] = []
    codes: list[np.ndarray] = []
    bits_per_second = 0.0
    for entry in entries:
        record = _shortened(corpus.record(entry, model.checkpoint.grid.fs_hz))
        tokens = model.tokenize(record)
        decoded = model.decode(tokens)
        bits_per_second = tokens.bits_per_second
        for i, lead in enumerate(record.leads):
            coded = wavelet_coded(record.signal[i], bits_per_second, record.fs)
            rows.append(
                {
                    "patient": entry.patient,
                    "lead": lead,
                    "r": pearson_r(record.signal[i], decoded.signal[i]),
                    "prd": prd(record.signal[i], decoded.signal[i]),
                    "wavelet_r": pearson_r(record.signal[i], coded),
                    "wavelet_prd": prd(record.signal[i], coded),
                }
            )
        beats.append(beat_errors(record, decoded))
        codes.append(tokens.codes[tokens.valid])
    return {
        "n_records": len(entries),
        "n_patients": len({e.patient for e in entries}),
        "bits_per_second": round(bits_per_second, 1),
        "waveform": {name: _summary(chosen) for name, chosen in _lead_groups(rows)},
        "beats": {
            key: round(float(np.median(np.concatenate([b[key] for b in beats]))), 3)
            for key in ("r_peak_error_ms", "qrs_amplitude_error_percent", "st_level_error_mv", "heart_rate_error_bpm")
        },
        "codes": _code_use(np.concatenate(codes), model),
    }


def _shortened(record: Record) -> Record:
    return record.with_(signal=record.signal[:, : int(LONGEST_S * record.fs)])


def _lead_groups(rows: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    rows = [row for row in rows if np.isfinite(row["r"])]
    yield "all leads", rows
    groups = {"limb leads": LIMB_LEADS, "precordial leads": PRECORDIAL_LEADS}
    for name, leads in groups.items():
        chosen = [row for row in rows if row["lead"] in leads]
        if chosen and len(chosen) < len(rows):
            yield name, chosen


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    values = {key: np.array([row[key] for row in rows]) for key in ("r", "prd", "wavelet_r", "wavelet_prd")}
    patients = np.array([row["patient"] for row in rows])
    low, high = patient_bootstrap(lambda chosen: float(np.median(values["r"][chosen])), patients)
    return {
        "n_leads": len(rows),
        "r_median": round(float(np.median(values["r"])), 4),
        "r_median_interval": [round(low, 4), round(high, 4)],
        "r_mean": round(float(np.mean(values["r"])), 4),
        "prd_median": round(float(np.median(values["prd"])), 2),
        "wavelet_r_median": round(float(np.median(values["wavelet_r"])), 4),
        "wavelet_prd_median": round(float(np.median(values["wavelet_prd"])), 2),
    }


def _code_use(codes: np.ndarray, model: Model) -> list[dict[str, float]]:
    size = model.checkpoint.config["model"]["tokenizer"]["codebook_size"]
    use = [usage_and_perplexity(codes[:, level], size) for level in range(codes.shape[1])]
    return [{"usage": round(share, 4), "perplexity": round(perplexity, 1)} for share, perplexity in use]


def beat_errors(record: Record, decoded: Record) -> dict[str, np.ndarray]:
    """Compare beats found in the decoded signal with those found in the measured one.

    Returns
    -------
    dict of ndarray
        Per beat: ``r_peak_error_ms``, ``qrs_amplitude_error_percent`` (peak to peak within 60 ms of R),
        ``st_level_error_mv`` (80 ms after R + 40 ms, against the level 80 ms before R), all absolute, in the lead the
        beats were found in; per record: ``heart_rate_error_bpm``.
    """
    measured, found = find_beats(record), find_beats(decoded)
    pairs = match_events(measured.r_peaks_s, found.r_peaks_s, tolerance_s=0.15)
    error_ms = np.abs(measured.r_peaks_s[pairs[:, 0]] - found.r_peaks_s[pairs[:, 1]]) * 1000
    amplitude, st_level = [], []
    if measured.lead is not None:
        row = record.leads.index(measured.lead)
        x, y, fs = record.signal[row], decoded.signal[row], record.fs
        for peak in np.round(measured.r_peaks_s * fs).astype(int):
            around = slice(max(0, peak - round(0.06 * fs)), peak + round(0.06 * fs))
            before, after = peak - round(0.08 * fs), peak + round(0.12 * fs)
            if before < 0 or after >= len(x) or not np.isfinite(x[before : after + 1] + y[before : after + 1]).all():
                continue  # cut off, or in a fragment too incomplete to have a code
            height = np.ptp(x[around])
            amplitude.append(100 * abs(np.ptp(y[around]) - height) / height)
            st_level.append(abs((y[after] - y[before]) - (x[after] - x[before])))
    rate_error = [] if measured.hr_bpm is None or found.hr_bpm is None else [abs(measured.hr_bpm - found.hr_bpm)]
    return {
        "r_peak_error_ms": error_ms,
        "qrs_amplitude_error_percent": np.array(amplitude),
        "st_level_error_mv": np.array(st_level),
        "heart_rate_error_bpm": np.array(rate_error),
    }


def wavelet_coded(x: np.ndarray, bits_per_second: float, fs: float) -> np.ndarray:
    """Code a waveform with the largest db6 wavelet coefficients that a bit budget pays for: the classical baseline.

    A coefficient costs 8 bits for its value and log2(n / k) + log2(e) for its place among n (the entropy of a sparse
    set of k), an idealisation in the baseline's favour.
    """
    import pywt

    filled = np.nan_to_num(x)
    coefficients = pywt.wavedec(filled, "db6", level=5, mode="periodization")
    flat, layout = pywt.coeffs_to_array(coefficients)
    budget = bits_per_second * len(x) / fs
    kept = 1
    while (kept + 1) * (8 + np.log2(len(flat) / (kept + 1)) + np.log2(np.e)) <= budget and kept < len(flat):
        kept += 1
    limit = np.sort(np.abs(flat))[-kept]
    step = np.abs(flat).max() / 127 or 1.0
    flat = np.where(np.abs(flat) >= limit, np.round(flat / step) * step, 0.0)
    back = pywt.array_to_coeffs(flat, layout, output_format="wavedec")
    return np.where(np.isfinite(x), pywt.waverec(back, "db6", mode="periodization")[: len(x)], np.nan)


# -- pre-training --------------------------------------------------------------------------------------------


def evaluate_pretraining(model: Model, folder: Path, _data: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Guess hidden codes of test records; probe the encoder against an untrained one on the same codes."""
    tokenizer, encoder = load_networks(model.checkpoint.folder)
    grid = model.checkpoint.grid
    windows = {}
    for split in ("train", "val", "test"):
        progress(f"tokenising the {split} records with labels")
        windows[split] = labelled_windows(tokenizer, Corpus(folder, split, (SUPERCLASS_DATABASE,)), grid)
    lead_ids = standard_lead_ids(tokenizer)
    progress("guessing hidden codes")
    guesses = masked_accuracy(encoder, windows["test"], lead_ids, windows["train"])
    torch.manual_seed(0)
    untrained = Encoder(encoder.config, tokenizer.config, tokenizer.quantizer.codebooks).eval()
    chosen = int(model.checkpoint.config["embedding_layer"])
    probes = {}
    for name, features in {
        "pre-trained encoder": lambda w: layer_features(encoder, w, lead_ids)[chosen],
        "untrained encoder, same codes": lambda w: layer_features(untrained, w, lead_ids)[chosen],
        "mean code vectors": lambda w: lead_means(w.vectors, w.valid).numpy(),
    }.items():
        progress(f"probing: {name}")
        probes[name] = _probe_both({split: features(w) for split, w in windows.items()}, windows)
    test = windows["test"].entries
    return {
        "split": f"{SUPERCLASS_DATABASE} test patients; probes fitted on train, chosen on val",
        "n_train": len(windows["train"].entries),
        "n_test": len(test),
        "n_test_patients": len({e.patient for e in test}),
        "prevalence": dict(zip(SUPERCLASSES, superclass_labels(test).mean(axis=0).round(3).tolist(), strict=True)),
        "male": round(float(sex_labels(test).mean()), 3),
        "embedding_layer": chosen,
        "masked_codes": guesses,
        "probes": probes,
    }


@torch.no_grad()
def masked_accuracy(encoder: Encoder, windows: Windows, lead_ids: Tensor, train: Windows) -> dict[str, Any]:
    """Share of hidden codes guessed, per level: the encoder, the commonest training code, the code to the left.

    Masks are pre-training's mixture at 40 % hidden (scattered, spans, whole leads), seeded.
    """
    section = MaskSection(all_but_few=0.0, ratio=(0.4, 0.4))
    rng = np.random.default_rng(0)
    commonest = train.codes[train.valid].mode(dim=0).values  # (K,)
    right: dict[str, list[Tensor]] = {"encoder": [], "unigram": [], "copy-left": []}
    n_hidden = n_valid = 0
    for part in windows.batches():
        codes, valid = windows.codes[part], windows.valid[part]
        mask = torch.from_numpy(mixed_mask(valid.numpy(), section, rng))
        known = (valid & ~mask).any(dim=-1)
        layers = encoder(codes, valid, mask, lead_ids.expand(len(codes), -1), windows.log_scale[part], known)
        guess = encoder.guess(layers[-1][mask]).argmax(dim=-1)  # (hidden, K)
        truth = codes[mask]
        right["encoder"].append(guess == truth)
        right["unigram"].append(commonest == truth)
        right["copy-left"].append(copied_from_left(codes, valid & ~mask)[mask] == truth)
        n_hidden += int(mask.sum())
        n_valid += int(valid.sum())
    share = {name: torch.cat(parts).float().mean(dim=0) for name, parts in right.items()}
    return {
        "hidden_share": round(n_hidden / n_valid, 3),
        "n_hidden": n_hidden,
        "accuracy": {name: [round(float(a), 4) for a in accuracy] for name, accuracy in share.items()},
    }


def copied_from_left(codes: Tensor, visible: Tensor) -> Tensor:
    """Return for each place the codes of the nearest visible place to its left in the same lead; -1 if there is none.

    Parameters
    ----------
    codes : Tensor, shape (B, L, P, K)
    visible : bool Tensor, shape (B, L, P)
    """
    positions = torch.arange(codes.shape[2]).expand(visible.shape)
    last = torch.where(visible, positions, -1).cummax(dim=-1).values  # (B, L, P)
    copied = codes.gather(2, last.clamp_min(0).unsqueeze(-1).expand_as(codes))
    return torch.where((last >= 0).unsqueeze(-1), copied, -1)


def _probe_both(features: dict[str, np.ndarray], windows: dict[str, Windows]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for task, labels_of in {"superclasses": superclass_labels, "sex": sex_labels}.items():
        labels = {split: labels_of(w.entries) for split, w in windows.items()}
        probe = fit_probe((features["train"], labels["train"]), (features["val"], labels["val"]), features["test"])
        patients = np.array([e.patient for e in windows["test"].entries])
        truth, scores = labels["test"], probe.scores
        low, high = patient_bootstrap(lambda rows, t=truth, s=scores: macro_auroc(t[rows], s[rows]), patients)  # type: ignore[misc]
        found[task] = {
            "macro_auroc": round(macro_auroc(truth, scores), 4),
            "interval": [round(low, 4), round(high, 4)],
            "each": [round(a, 4) for a in each_auroc(truth, scores)],
            "validation": round(probe.validation, 4),
        }
    return found


EVALUATIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "tokenizer": evaluate_tokenizer,
    "pretraining": evaluate_pretraining,
    "robustness": evaluate_robustness,
    "meaning": evaluate_meaning,
    "restoration": evaluate_restoration,
    "heads": evaluate_heads,
}
"""What can be measured: (model, folder of the prepared databases, that of the restored ones, progress) -> numbers."""
