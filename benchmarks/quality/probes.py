"""What else a pre-trained encoder is asked by linear probes, beside the superclasses: rhythm, one lead, single beats.

- *rhythm statements*: the records the superclasses are asked of, the statements on rhythm with at least ten test
  positives; features: mean over time and leads.
- *one lead*: N, A, O and ~ (noise) of short single-lead recordings, their first half minute; features: mean over time.
- *beats*: N, S and V of DS1 -> DS2, every third half minute of each record's first lead; features: the embedding of the
  one fragment that holds the R peak, which is what a code must know by itself or from its context. Every third patient
  of DS1 validates.

Each probe: logistic regression, layer and strength chosen on validation patients, macro AUROC on test patients. The
encoder runs in bfloat16, as it was trained: half the time.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anyecg.engine import Model
from anyecg.metrics import auroc, macro_auroc, patient_bootstrap
from anyecg.models.encoder import Encoder
from anyecg.training.datasets import BEATS_DATABASE, SINGLE_LEAD_DATABASE, Corpus, Entry, diagnosis_labels
from anyecg.training.marks import BEAT_CLASSES, read_beats
from anyecg.training.probe import Windows, fit_probe

STATEMENTS = ("SR", "AFIB", "SARRH")
"""Statements on rhythm that ten test records or more bear; tachycardia (7) and bradycardia (8) have fewer."""

LETTERS = ("N", "A", "O", "~")
N_STRIPS = {"train": 1200, "val": 400, "test": None}
"""The first so many recordings of a split, None: all. Few, so that one encoder costs less than a minute."""

BEATS = tuple(BEAT_CLASSES)[:3]
EVERY = 3
"""Every third window of half a minute, every third patient to validate."""

CLASSES = {"rhythm statements": STATEMENTS, "one lead": LETTERS, "beats": BEATS}
"""The questions, and what is told apart in each."""

PATIENT_SPLITS = ("train", "val", "test")

Layers = dict[int, np.ndarray]


@dataclass
class Strips:
    """Windows as an encoder takes them; what is shorter than the others is padded with what is not valid.

    ``codes`` int64 (W, L, P, K), ``valid`` bool (W, L, P), ``lead_ids`` int64 (W, L), ``log_scale`` float32 (W, L),
    ``scale_known`` bool (W, L).
    """

    codes: Tensor
    valid: Tensor
    lead_ids: Tensor
    log_scale: Tensor
    scale_known: Tensor

    @classmethod
    def of_lead(cls, model: Model, corpus: Corpus, entry: Entry, every: int | None) -> "Strips":
        """Cut a record's first lead into windows of half a minute; keep the first, or each ``every``-th whole one."""
        record = corpus.record(entry, model.checkpoint.preparation.fs_hz)
        windows = model.windows(model.tokenize(record.pick(record.leads[:1])))
        # The last window is moved back over the one before it: its place would not be number times length.
        numbers = range(1) if every is None else range(0, len(windows.valid) - 1, every)
        short = int(model.checkpoint.config["window_fragments"]["few"]) - windows.valid.shape[2]
        chosen = {f.name: getattr(windows, f.name)[list(numbers)] for f in fields(cls)}
        for name in ("codes", "valid"):
            on_time = [(0, 0), (0, 0), (0, short)] + [(0, 0)] * (chosen[name].ndim - 3)
            chosen[name] = np.pad(chosen[name], on_time)
        return cls(**{name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in chosen.items()})

    @classmethod
    def joined(cls, parts: list["Strips"]) -> "Strips":
        """Lay windows of several records behind each other."""
        return cls(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    @classmethod
    def of_windows(cls, windows: Windows, lead_ids: Tensor) -> "Strips":
        """Take 12-lead windows; ``lead_ids`` (1, 12)."""
        known = windows.valid.any(dim=-1)
        return cls(windows.codes, windows.valid, lead_ids.expand(len(known), -1), windows.log_scale, known)

    @torch.no_grad()
    def encoded(self, encoder: Encoder, at_once: int = 32) -> Iterator[tuple[slice, list[Tensor]]]:
        """Yield slices of the windows and every layer's output (B, L, P, D); nothing is hidden."""
        for start in range(0, len(self.valid), at_once):
            part = slice(start, start + at_once)
            codes, valid, lead_ids, log_scale, known = (getattr(self, f.name)[part] for f in fields(self))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                layers = encoder(codes, valid, torch.zeros_like(valid), lead_ids, log_scale, known)
            yield part, [layer.float() for layer in layers]


@dataclass
class Asked:
    """Windows of one split, what is true of each recording or beat, and whose it is.

    ``window`` and ``fragment`` int (n,) say where a beat lies; for recordings ``fragment`` is None: the whole window.
    """

    strips: Strips
    labels: np.ndarray
    patients: np.ndarray
    window: np.ndarray
    fragment: np.ndarray | None

    def features(self, encoder: Encoder, layers: tuple[int, ...]) -> Layers:
        """Return for each layer the features (n, D)."""
        found: dict[int, list[Tensor]] = {k: [] for k in layers}
        for part, outputs in self.strips.encoded(encoder):
            valid = self.strips.valid[part].unsqueeze(-1)
            here = (self.window >= part.start) & (self.window < part.stop)
            for k in layers:
                tokens = outputs[k]  # (B, L, P, D)
                if self.fragment is None:
                    found[k].append((tokens * valid).sum(dim=(1, 2)) / valid.sum(dim=(1, 2)).clamp_min(1))
                else:
                    found[k].append(tokens[self.window[here] - part.start, 0, self.fragment[here]])
        return {k: torch.cat(parts).numpy() for k, parts in found.items()}


class Questions:
    """What is asked of every encoder; each part is tokenised when it is first needed.

    ``windows`` returns the 12-lead windows of each split (see `anyecg.training.probe.labelled_windows`), ``lead_ids``
    (1, 12) their leads.
    """

    def __init__(
        self,
        model: Model,
        prepared: Path,
        data: Path,
        windows: Callable[[], dict[str, Windows]],
        lead_ids: Tensor,
        progress: Callable[[str], None],
    ) -> None:
        self.model, self.prepared, self.data = model, prepared, data
        self.windows, self.lead_ids, self.progress = windows, lead_ids, progress

    @cached_property
    def rhythm_statements(self) -> dict[str, Asked]:
        """12-lead records and what was stated of their rhythm."""
        stated = {row["file"]: row for row in diagnosis_labels(self.data, self.data / "splits.csv")}
        asked = {}
        for split, windows in self.windows().items():
            rows = [stated[f"{e.database}/{e.record}.hea"] for e in windows.entries]
            asked[split] = Asked(
                Strips.of_windows(windows, self.lead_ids),
                np.array([[row[s] == "1" for s in STATEMENTS] for row in rows]),
                np.array([e.patient for e in windows.entries]),
                np.arange(len(rows)),
                None,
            )
        return asked

    @cached_property
    def one_lead(self) -> dict[str, Asked]:
        """Recordings of one lead with their letters."""
        self.progress(f"tokenising {SINGLE_LEAD_DATABASE}")
        asked = {}
        for split, most in N_STRIPS.items():
            corpus = Corpus(self.prepared, split, (SINGLE_LEAD_DATABASE,))
            entries = corpus.entries[:most]
            asked[split] = Asked(
                Strips.joined([Strips.of_lead(self.model, corpus, e, None) for e in entries]),
                np.array([[letter in e.labels for letter in LETTERS] for e in entries]),
                np.array([e.patient for e in entries]),
                np.arange(len(entries)),
                None,
            )
        return asked

    @cached_property
    def beats(self) -> dict[str, Asked]:
        """Beats, and in which fragment of which window their R peak lies."""
        self.progress(f"tokenising {BEATS_DATABASE}")
        corpora = {split: Corpus(self.prepared, split, (BEATS_DATABASE,)) for split in ("train", "test")}
        learned, test = corpora["train"].entries, corpora["test"].entries
        of_split = {
            "train": [e for i, e in enumerate(learned) if i % EVERY],
            "val": learned[::EVERY],
            "test": test,
        }
        return {s: self._beats(corpora["test" if s == "test" else "train"], of_split[s]) for s in PATIENT_SPLITS}

    def _beats(self, corpus: Corpus, entries: list[Entry]) -> Asked:
        strips, rows, n_before = [], [], 0
        for entry in entries:
            strips.append(Strips.of_lead(self.model, corpus, entry, EVERY))
            at_s, classes = read_beats(self.data / BEATS_DATABASE / entry.record)
            window, fragment = placed(at_s, self.model.checkpoint.grid.fragment_s, strips[-1].valid.shape[2])
            held = (window % EVERY == 0) & (window // EVERY < len(strips[-1].valid)) & (classes < len(BEATS))
            held[held] &= strips[-1].valid.numpy()[window[held] // EVERY, 0, fragment[held]]
            rows += [
                (n_before + w // EVERY, f, c, entry.patient)
                for w, f, c in zip(window[held], fragment[held], classes[held], strict=True)
            ]
            n_before += len(strips[-1].valid)
        windows, fragments, classes, patients = (np.array(column) for column in zip(*rows, strict=True))
        labels = classes[:, None] == np.arange(len(BEATS))
        return Asked(Strips.joined(strips), labels, patients, windows, fragments)

    def of(self, encoder: Encoder, layers: tuple[int, ...], some: Collection[str] = tuple(CLASSES)) -> dict[str, Any]:
        """Ask some of the questions, by default all, of one encoder, of some of its layers."""
        found = {}
        for name in some:
            asked: dict[str, Asked] = getattr(self, name.replace(" ", "_"))
            classes = CLASSES[name]
            features = {split: part.features(encoder, layers) for split, part in asked.items()}
            labels = {split: part.labels for split, part in asked.items()}
            found[name] = judged(features, labels, asked["test"].patients, classes)
        return found


def placed(at_s: np.ndarray, fragment_s: float, n_window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of the window, and of the fragment in it, that hold each moment."""
    fragment = (at_s / fragment_s).astype(int)
    return fragment // n_window, fragment % n_window


def judged(
    features: dict[str, Layers], labels: dict[str, np.ndarray], patients: np.ndarray, classes: tuple[str, ...]
) -> dict[str, Any]:
    """Fit a linear probe on each layer's features; validation chooses the layer, test patients judge it.

    Parameters
    ----------
    features, labels : dict
        By split: features of each layer (n, F); bool (n, n_classes).
    patients : ndarray, shape (n_test,)
    classes : tuple of str
    """
    probes = {
        k: fit_probe((features["train"][k], labels["train"]), (features["val"][k], labels["val"]), features["test"][k])
        for k in features["train"]
    }
    layer = max(probes, key=lambda k: probes[k].validation)
    truth, scores = labels["test"], probes[layer].scores
    low, high = patient_bootstrap(lambda rows: macro_auroc(truth[rows], scores[rows]), patients)
    return {
        "macro_auroc": round(macro_auroc(truth, scores), 4),
        "interval": [round(low, 4), round(high, 4)],
        "each": {name: round(auroc(truth[:, k], scores[:, k]), 4) for k, name in enumerate(classes)},
        "layer": int(layer),
        "validation": round(probes[layer].validation, 4),
        "counted": {
            **{f"n_{split}": len(of_split) for split, of_split in labels.items()},
            "n_test_patients": len(np.unique(patients)),
            "n_test_of_each": dict(zip(classes, truth.sum(axis=0).tolist(), strict=True)),
        },
    }
