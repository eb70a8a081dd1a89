"""What a record shows: every label of the checkpoint's record heads, with a calibrated probability.

A head looks at the encoder's windows (10 s of many leads, 30 s of one or two) through the leads that quality lets it
use; the logits of all windows are averaged. Any set of leads has an answer; the finding says which leads gave it.

A head may have trees beside its network: they read what was measured in the window (its config's ``measures``), and
their log odds are added with a weight (``tree_weight``, one for many leads and one for few).
"""

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from anyecg.engine import Embedding, Model
from anyecg.errors import CheckpointError
from anyecg.heads import Head
from anyecg.record import Record
from anyecg.result import Finding, Quality, Rhythm
from anyecg.tasks.rr_features import rr_features
from anyecg.tasks.window_measures import KNOWN, Measured
from anyecg.tokens import Tokens

KIND = "record"

FEW_LEADS = 2
"""Records of so many leads and fewer have a calibration, thresholds and labels of their own."""


def window_logits(
    model: Model,
    tokens: Tokens,
    rhythm: Rhythm,
    quality: Quality,
    embedding: Embedding | None = None,
    measured: Measured | None = None,
    only: int | None = None,
) -> dict[str, np.ndarray]:
    """Return what each record head makes of each window in which a usable lead is recorded: float32 (W, n_labels).

    Asked are the heads of a checkpoint that are meant for this number of leads.

    Parameters
    ----------
    model : Model
    tokens : Tokens
    rhythm : Rhythm
    quality : Quality
        Leads of score 0 are not looked at; in an unusable record nothing can be assessed.
    embedding : Embedding, optional
        Of these tokens: saves a pass of the encoder where a head begins from that layer and all leads are used.
    measured : Measured, optional
        What the tokens were made of, and its beats: heads with trees measure it. Without it they measure what the codes
        stand for.
    only : int, optional
        Measure this window alone (counted round and round), and let it stand for all: what a long recording affords
        each of its pieces. The networks see every window all the same.
    """
    used = used_leads(quality)
    seen = np.array([lead in used for lead in tokens.leads])
    visible = replace(tokens, valid=tokens.valid & seen[:, None])
    heads = record_heads(model, len(tokens.leads))
    if not visible.valid.any():
        return {head.name: np.empty((0, len(head.labels)), dtype=np.float32) for head in heads}
    known = embedding if seen.all() else None
    look = _Look(model, heads, visible, rhythm, known, measured, only)
    return {head.name: look.logits(head) for head in heads}


def labels_of(model: Model, logits: dict[str, np.ndarray], quality: Quality, duration_s: float) -> tuple[Finding, ...]:
    """Turn the logits of a recording's windows into findings.

    Returns
    -------
    tuple of Finding
        Every label of every head (with one or two leads: those that so few can tell), ``present`` True or False; None,
        without a score, if nothing can be assessed. Where two heads have the same label the first one's answer stands
        (see `record_heads`).
    """
    n_leads, used = len(quality.leads), used_leads(quality)
    found: dict[str, Finding] = {}
    for head in record_heads(model, n_leads):
        config = for_leads(head.config, n_leads)
        scores = calibrated(_mean(logits[head.name]), config) if used and len(logits[head.name]) else None
        for finding in _findings(head, config, scores, duration_s, used):
            found.setdefault(finding.code, finding)
    return tuple(found.values())


def used_leads(quality: Quality) -> tuple[str, ...]:
    """Return the leads that are good enough to be looked at."""
    return tuple(name for name, lead in quality.leads.items() if lead.score > 0) if quality.usable else ()


def record_heads(model: Model, n_leads: int) -> list[Head]:
    """Return the record heads for a number of leads, those made for few leads alone first.

    Raises
    ------
    CheckpointError
        A head was fitted to other weights.
    """
    names = record_head_names(model, n_leads)
    heads = [head for name in names if (head := model.head(name)) is not None]
    for head in heads:
        if head.config["parent_sha256"] != model.checkpoint.sha256:
            raise CheckpointError(
                f"{head.path}: fitted to weights {head.config['parent_sha256'][:12]}..., expected "
                f"{model.checkpoint.sha256[:12]}.... Take it out, or fit it anew with anyecg finetune."
            )
    return heads


def record_head_names(model: Model, n_leads: int | None = None) -> list[str]:
    """Return the names of the record heads for a number of leads (None: those for any), made for few leads first."""
    most = {n: c.get("most_leads", np.inf) for n, c in model.head_configs.items() if c["kind"] == KIND}
    return sorted((n for n in most if (np.inf if n_leads is None else n_leads) <= most[n]), key=lambda n: most[n])


def label_scores(
    model: Model,
    head: Head,
    tokens: Tokens,
    rhythm: Rhythm,
    embedding: Embedding | None = None,
    prepared: Record | None = None,
) -> np.ndarray:
    """Return the calibrated probability of each label of a head, shape (n_labels,); ``prepared`` is measured."""
    logits = record_logits(model, head, tokens, rhythm, embedding, prepared)
    return to_probability(logits, head.config["exclusive"])


def record_logits(
    model: Model,
    head: Head,
    tokens: Tokens,
    rhythm: Rhythm,
    embedding: Embedding | None = None,
    prepared: Record | None = None,
) -> np.ndarray:
    """Return the calibrated logit of each label of a head, shape (n_labels,), by what was measured of ``prepared``."""
    logits = _mean(_Look(model, [head], tokens, rhythm, embedding, _measurable(prepared, rhythm)).logits(head))
    return calibrated_logits(logits, for_leads(head.config, len(tokens.leads)))


def head_outputs(
    model: Model, head: Head, tokens: Tokens, rhythm: Rhythm, prepared: Record | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return a record's mean logits of a head's network and of its trees, each (n_labels,), neither calibrated.

    A head without trees has zeros for them.
    """
    network, trees = _Look(model, [head], tokens, rhythm, None, _measurable(prepared, rhythm)).outputs(head)
    return _mean(network), _mean(trees)


def _measurable(prepared: Record | None, rhythm: Rhythm) -> Measured | None:
    return None if prepared is None else Measured(prepared, rhythm)


def _mean(logits: np.ndarray) -> np.ndarray:
    return np.asarray(logits.astype(np.float64).mean(axis=0))


class _Look:
    """One record's windows as some heads want them: what two of them ask for is measured once."""

    def __init__(
        self,
        model: Model,
        heads: list[Head],
        tokens: Tokens,
        rhythm: Rhythm,
        embedding: Embedding | None = None,
        measured: Measured | None = None,
        only: int | None = None,
    ) -> None:
        self.model, self.tokens, self.rhythm = model, tokens, rhythm
        self.embedding, self.measured, self.only = embedding, measured, only
        self.windows = model.windows(tokens)
        size = self.windows.valid.shape[-1]
        self.heard = np.asarray(self.windows.valid.any(axis=(1, 2)))
        self.starts = self.windows.starts * tokens.grid.fragment_s
        self.length_s = size * tokens.grid.fragment_s
        self.features = np.stack([rr_features(rhythm.r_peaks_s, s, s + self.length_s) for s in self.starts])
        self.names = tuple(dict.fromkeys(name for head in heads for name in head.config.get("measures", ())))

    def logits(self, head: Head) -> np.ndarray:
        """Return what a head makes of each window in which anything is recorded, float32 (W, n_labels)."""
        network, trees = self.outputs(head)
        if "measures" not in head.config:
            return network
        weight = for_leads(head.config, len(self.tokens.leads))["tree_weight"]
        return np.asarray(network + np.float32(weight) * trees)

    def outputs(self, head: Head) -> tuple[np.ndarray, np.ndarray]:
        """Return what a head's network and its trees make of each window, float32 (W, n_labels) each."""
        first = int(head.config["first_layer"])
        if self.embedding is not None and first == self.model.checkpoint.config["embedding_layer"]:
            hidden = self.windows.cut(np.nan_to_num(self.embedding.per_fragment))
        else:
            hidden = self.model.layer(self.windows, first)
        inputs = {
            "hidden": hidden,
            "valid": self.windows.valid,
            "lead_ids": self.windows.lead_ids,
            "features": self.features,
        }
        if "measures" in head.config:
            inputs["measures"] = self._measures(head)
        network, *trees = (np.asarray(x[self.heard], dtype=np.float32) for x in head.run(**inputs))
        return network, trees[0] if trees else np.zeros_like(network)

    def _measures(self, head: Head) -> np.ndarray:
        """Return the measures a head asks for, float32 (W, F)."""
        unknown = sorted(set(head.config["measures"]) - KNOWN)
        if unknown:
            raise CheckpointError(
                f"{head.path}: asks for measures {unknown[:3]}, expected some of this version's. Update anyecg, or "
                "take the checkpoint anew from its source."
            )
        return self._of_windows[:, [self.names.index(name) for name in head.config["measures"]]]

    @cached_property
    def _of_windows(self) -> np.ndarray:
        """The measures that any of the heads asks for, in each window; NaN where nothing is recorded."""
        measured = self.measured or Measured(self.model.decode(self.tokens), self.rhythm)
        seen = np.asarray(self.tokens.valid.any(axis=1)).tolist()
        leads = tuple(lead for lead, there in zip(self.tokens.leads, seen, strict=True) if there)
        asked = np.flatnonzero(self.heard)
        asked = asked if self.only is None else asked[[self.only % len(asked)]]
        found = np.full((len(self.heard), len(self.names)), np.nan, dtype=np.float32)
        for window in asked:
            start_s = self.starts[window]
            found[window] = measured.window(self.names, start_s, start_s + self.length_s, leads)
        return found if self.only is None else np.repeat(found[asked], len(found), axis=0)


def for_leads(config: dict[str, Any], n_leads: int) -> dict[str, Any]:
    """Return a head's config with the calibration that holds for a number of leads."""
    return {**config, **config["few_leads"]} if n_leads <= FEW_LEADS and "few_leads" in config else config


def calibrated(logits: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """Turn mean logits (..., n_labels) into probabilities with a head's temperature, slopes and shifts."""
    return to_probability(calibrated_logits(logits, config), config["exclusive"])


def calibrated_logits(logits: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """Give mean logits (..., n_labels) a head's temperature, slopes (older heads have none) and shifts."""
    slopes = np.array(config.get("slopes", 1.0))
    return np.asarray(logits * slopes / config["temperature"] + np.array(config["shifts"]))


def to_probability(logits: np.ndarray, exclusive: bool) -> np.ndarray:
    """Softmax over the labels (..., n_labels), or a sigmoid of each."""
    if not exclusive:
        return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))  # a sigmoid that cannot overflow
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def _findings(
    head: Head, config: dict[str, Any], scores: np.ndarray | None, duration_s: float, leads: tuple[str, ...]
) -> list[Finding]:
    exclusive = config["exclusive"]
    thresholds = config.get("thresholds", [label.threshold for label in head.labels])
    told = config.get("told", [True] * len(head.labels))
    findings = []
    for k, label in enumerate(head.labels):
        if not told[k]:
            continue
        present = None
        if scores is not None:
            present = bool(k == scores.argmax()) if exclusive else bool(scores[k] >= thresholds[k])
        findings.append(
            Finding(
                start_s=0.0,
                end_s=duration_s,
                kind=label.kind,
                code=label.code,
                score=None if scores is None else float(scores[k]),
                snomed=label.snomed,
                name=label.name,
                threshold=None if exclusive else thresholds[k],
                present=present,
                leads=leads,
                source=head.name,
            )
        )
    return findings
