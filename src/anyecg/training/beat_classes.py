"""Teach the head ``beats``: which AAMI class each beat is of, between patients.

    B batch, n beats, R RR features or K verdicts on them, F shape features, C = 5 classes

Two steps. Trees first learn from RR intervals alone, on day-long annotations that come without a signal (more patients
than the records with signal have by far; `anyecg.training.beat_rr`). What they say is then told a small network beside
the features of the wave. Everything is chosen by leaving patients of split ``train`` out: calibration, decision.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anyecg.beats import find_beats
from anyecg.heads import write_head
from anyecg.models.export import quietly_exported
from anyecg.record import Record
from anyecg.tasks.beat_classes import ALIKE_R, CLASSES, HEAD, SHAPE_GROUPS, BeatInputs, beat_inputs, decide
from anyecg.tasks.beat_rr import N_RR_FEATURES
from anyecg.training.beat_network import FIBRILLATION, NORMAL, Beats, BeatsNet, fit_beats, probabilities
from anyecg.training.beat_rr import RRTrees, fit_rr, load_rr
from anyecg.training.datasets import BEATS_DATABASE, RR_DATABASES, SINGLE_LEAD_DATABASE, Corpus
from anyecg.training.forests import MEASURES_IN, TREES_OUT, with_forests
from anyecg.training.marks import read_beats

CUT_BEATS = 12
"""Records are also shown in cuts of so many beats, as a ten-second recording has: its dominant beat is less certain."""

CUTS = 20
"""Cuts of each record."""

WEAKLY_NORMAL = ((FIBRILLATION, 400, 12), (NORMAL, 200, 4))
"""How names begin, records, and patients they count for, of what `load_fibrillation` adds. They are short, many, and
marked by nobody, and must not outvote the 21 patients whose every beat is."""

LEAST_V_SE = 0.98
"""Of the V beats of patients left out, found: a missed one is worse than a false one, and F1 alone does not mind. The
first version of the head found .986 of them."""

FOLDS = 7
"""Groups of patients left out in turn."""


def load_beats(corpus: Corpus, data: Path, fs_hz: float, progress: Callable[[str], None], varied: bool = True) -> Beats:
    """Describe every marked beat of a corpus.

    Parameters
    ----------
    data : Path
        The restored databases: the marks are there.
    varied : bool
        Besides the whole record: each lead alone, and cuts of `CUT_BEATS` beats of all leads or one.
    """
    parts: list[tuple[BeatInputs, np.ndarray, str, bool]] = []
    for number, entry in enumerate(corpus.entries):
        progress(f"beats: record {number + 1} of {len(corpus)}")
        record = corpus.record(entry, fs_hz)
        at_s, classes = read_beats(data / entry.database / entry.record)
        parts.append((beat_inputs(record, at_s), classes, entry.record, True))
        if varied:
            parts += [(*part, entry.record, False) for part in _variants(record, at_s, classes)]
    return Beats(
        np.concatenate([inputs.rr for inputs, *_ in parts]),
        np.concatenate([inputs.shape for inputs, *_ in parts]),
        np.concatenate([classes for _, classes, *_ in parts]),
        np.concatenate([np.full(len(classes), name) for _, classes, name, _ in parts]),
        np.concatenate([np.full(len(classes), whole) for _, classes, _, whole in parts]),
    )


def _variants(record: Record, at_s: np.ndarray, classes: np.ndarray) -> list[tuple[BeatInputs, np.ndarray]]:
    """Return the record as single leads, and in short cuts of all leads and of one."""
    lone = [record.pick([lead]) for lead in record.leads]
    found = [(beat_inputs(alone, at_s), classes) for alone in lone]
    for number, first in enumerate(np.linspace(0, max(len(at_s) - CUT_BEATS, 0), CUTS).astype(int)):
        chosen = slice(first, first + CUT_BEATS)
        shown = [record, *lone][number % (1 + len(lone))]
        found.append((beat_inputs(shown, at_s[chosen]), classes[chosen]))
    return found


def load_fibrillation(corpus: Corpus, fs_hz: float, progress: Callable[[str], None]) -> Beats:
    """Describe beats of single-lead records in atrial fibrillation, and in normal rhythm, as N.

    Nobody marked them; but in fibrillation no beat counts as supraventricular ectopic, however early it comes and
    though none has a P wave, and of `Beats` few records say so. A beat of another shape than its record's dominant one
    may be ventricular: it is left out.
    """
    rng = np.random.default_rng(0)
    parts: list[tuple[BeatInputs, str]] = []
    for start, n_records, n_groups in WEAKLY_NORMAL:
        entries = [entry for entry in corpus.entries if entry.labels == [start[0]]]
        chosen = [entries[i] for i in rng.permutation(len(entries))[:n_records]]
        progress(f"beats: {len(chosen)} records labelled {start[0]}")
        for number, entry in enumerate(chosen):
            record = corpus.record(entry, fs_hz)
            inputs = beat_inputs(record, find_beats(record).r_peaks_s)
            usual = inputs.shape[:, SHAPE_GROUPS.index(1)] > ALIKE_R  # NaN where there is no wave
            parts.append((BeatInputs(inputs.rr[usual], inputs.shape[usual]), f"{start}part {number % n_groups}"))
    n = [len(inputs.rr) for inputs, _ in parts]
    return Beats(
        np.concatenate([inputs.rr for inputs, _ in parts]),
        np.concatenate([inputs.shape for inputs, _ in parts]),
        np.zeros(sum(n), dtype=np.int64),
        np.repeat([name for _, name in parts], n),
        np.zeros(sum(n), dtype=bool),
    )


# -- leaving patients out ---------------------------------------------------------------------------------------


def folds_of(beats: Beats, n_folds: int = FOLDS) -> list[np.ndarray]:
    """Deal the records out into groups: those richest in S beats go to different ones."""
    names = np.unique(beats.records[beats.whole])
    n_s = np.array([np.sum((beats.records == name) & (beats.classes == CLASSES.index("S"))) for name in names])
    ordered = names[np.argsort(-n_s, kind="stable")]
    return [ordered[fold::n_folds] for fold in range(min(n_folds, len(names)))]


def left_out(beats: Beats, two_witnesses: bool, progress: Callable[[str], None], **fit: int) -> np.ndarray:
    """Return what the head says of each whole-record beat when its patient is left out: (n of ``beats.whole``, C)."""
    told = beats.of(beats.whole)
    p = np.zeros((len(told.classes), len(CLASSES)))
    for names in folds_of(told):
        progress(f"leaving out {', '.join(names)}")
        net = fit_beats(beats.of(~np.isin(beats.records, names)), two_witnesses, **fit)
        rows = np.isin(told.records, names)
        p[rows] = probabilities(net, told.of(rows))
    return p


# -- calibration, decision -----------------------------------------------------------------------------------


def fit_calibration(p: np.ndarray, classes: np.ndarray) -> tuple[float, np.ndarray]:
    """Return slope and offset (C,) of log p under which the true classes are likeliest (Platt scaling)."""
    from scipy.optimize import minimize

    log_p = np.log(p + 1e-7)

    def loss(x: np.ndarray) -> float:
        logits = x[0] * log_p + np.concatenate([[0.0], x[1:]])
        logits = logits - logits.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(logits).sum(axis=1))
        # A weak pull to no offset: a class that hardly occurs must not be pushed out of sight.
        return float((log_sum - logits[np.arange(len(classes)), classes]).mean() + 1e-5 * np.square(x[1:]).sum())

    found = minimize(loss, np.concatenate([[1.0], np.full(p.shape[1] - 1, -1.0)]), method="L-BFGS-B")
    return float(found.x[0]), np.concatenate([[0.0], found.x[1:]])


def calibrated(p: np.ndarray, slope: float, offset: np.ndarray) -> np.ndarray:
    """Return p (n, C) calibrated."""
    logits = slope * np.log(p + 1e-7) + offset
    q = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(q / q.sum(axis=1, keepdims=True))


def class_scores(truth: np.ndarray, found: np.ndarray) -> dict[str, dict[str, Any]]:
    """Return counts, Se, PPV (None where there is no beat) and F1 (then 0) of each class.

    -1 in ``truth`` is a false beat, in ``found`` a missed one.
    """
    scores = {}
    for k, name in enumerate(CLASSES):
        n_true, n_found, both = (int(np.sum(x)) for x in (truth == k, found == k, (truth == k) & (found == k)))
        scores[name] = {
            **{"n": n_true, "found": n_found, "correct": both},
            "se": both / n_true if n_true else None,
            "ppv": both / n_found if n_found else None,
            "f1": 2 * both / max(1, n_true + n_found),
        }
    return scores


def choose_decision(p: np.ndarray, classes: np.ndarray, least_v_se: float = 0.0) -> dict[str, float]:
    """Return what to add to log p of S and of V before the largest decides: what makes F1 of S plus F1 of V largest.

    Of those that find ``least_v_se`` of the V beats, if there are any.
    """

    def scored(decision: dict[str, float]) -> tuple[float, float]:
        scores = class_scores(classes, decide(p, decision))
        return min(scores["V"]["se"] or 0.0, least_v_se), float(sum(scores[name]["f1"] for name in decision))

    candidates = [{"S": s, "V": v} for s in np.arange(-1.0, 2.1, 0.25) for v in np.arange(-1.0, 1.1, 0.5)]
    return {name: float(value) for name, value in max(candidates, key=scored).items()}


# -- the head ------------------------------------------------------------------------------------------------


def train_beats(
    checkpoint: Path, data: Path, splits: Path, progress: Callable[[str], None] = print, folder: Path | None = None
) -> dict[str, Any]:
    """Teach the head ``beats`` and write it into a checkpoint folder.

    Parameters
    ----------
    checkpoint : Path
        A checkpoint folder: its preparation is used, its networks are not (see the notes).
    data : Path
        The restored databases.
    splits : Path
        The CSV of splits: only ``train`` is learned from, and chosen on by leaving patients out.
    folder : Path, optional
        The prepared corpora; default: prepared here if they are not yet.

    Returns
    -------
    dict
        The scores of beats whose patients were left out, by class.

    Notes
    -----
    Embeddings and surprise of the checkpoint's model are not among the features. With patients left out, one network
    gained some F1 of S from them and lost a little of V (the quality benchmark says how much): too little, and too
    uncertain with these few patients, for a head that would then have to wait for the model.
    Cuts of mostly ectopic beats, and records joined from such stretches, were tried as further training data, and
    dropped: patients left out were worse.
    """
    from anyecg.checkpoint import open_checkpoint
    from anyecg.training.datasets import prepare_databases

    preparation = open_checkpoint(checkpoint).preparation
    prepared = folder or prepare_databases(data, splits, preparation, progress)
    trees = fit_rr(load_rr(data, splits, progress))
    if trees is None:
        raise ValueError(f"{data}: no day-long annotations of {' or '.join(RR_DATABASES)} to learn RR intervals from")
    beats = load_beats(Corpus(prepared, "train", (BEATS_DATABASE,)), data, preparation.fs_hz, progress)
    more = load_fibrillation(Corpus(prepared, "train", (SINGLE_LEAD_DATABASE,)), preparation.fs_hz, progress)
    told = beats.and_also(more).told_by(trees)
    net, decision, scores = fit_and_calibrate(told, True, progress)
    config = {
        **{"kind": "beat", "version": 2, "decision": decision, "fs_hz": preparation.fs_hz},
        "labels": [
            {"code": code, "snomed": None, "name": name, "kind": "beat", "threshold": 0.0}
            for code, name in zip(CLASSES, NAMES, strict=True)
        ],
        "trained_on": [BEATS_DATABASE, *RR_DATABASES, SINGLE_LEAD_DATABASE],
        "n_patients": len(np.unique(beats.records)),
        "left_out_scores": scores,
    }
    write_head(checkpoint, HEAD, config, to_onnx(net, told, trees))
    return scores


NAMES = (
    "normal, bundle branch block, or supraventricular escape beat",
    "supraventricular ectopic beat",
    "ventricular ectopic beat",
    "fusion of a ventricular and a normal beat",
    "unclassifiable or paced beat",
)


def fit_and_calibrate(
    beats: Beats, two_witnesses: bool, progress: Callable[[str], None], **fit: int
) -> tuple[BeatsNet, dict[str, float], dict[str, dict[str, Any]]]:
    """Return the network fitted on all beats, its decision, and its scores on patients left out."""
    classes = beats.classes[beats.whole]
    p = left_out(beats, two_witnesses, progress, **fit)
    slope, offset = fit_calibration(p, classes)
    p = calibrated(p, slope, offset)
    decision = choose_decision(p, classes, LEAST_V_SE)
    net = fit_beats(beats, two_witnesses, **fit)
    net.slope.fill_(slope)
    net.offset.copy_(torch.tensor(offset, dtype=torch.float32))
    return net, decision, class_scores(classes, decide(p, decision))


def to_onnx(net: BeatsNet, beats: Beats, trees: RRTrees) -> bytes:
    """Return the head as a graph: inputs ``rr`` (n, R) and ``shape`` (n, F), output ``probabilities`` (n, C)."""
    import onnx

    some = {"verdicts": torch.tensor(beats.rr[:3]), "shape": torch.tensor(beats.shape[:3])}
    n = torch.export.Dim("n")
    network = quietly_exported(net, some, ["probabilities"], ({0: n}, {0: n}))
    empty = onnx.helper.make_model(
        onnx.helper.make_graph([], "trees", [], []), opset_imports=network.opset_import, ir_version=network.ir_version
    )
    forests = onnx.load_from_string(with_forests(empty.SerializeToString(), trees.forests(), N_RR_FEATURES))
    joined = onnx.compose.merge_models(forests, network, io_map=[(TREES_OUT, "verdicts")])
    joined.graph.input[0].name = "rr"
    for node in joined.graph.node:
        node.input[:] = ["rr" if name == MEASURES_IN else name for name in node.input]
    return bytes(joined.SerializeToString())
