"""Row ``robustness_probe``: does a diagnosis survive a worse, or a different, recording of the same heart.

The five diagnostic superclasses of ptb-xl, told by the head that ships (a network and trees beside it, fitted once,
to train records), on the same test records changed in one way at a time. Noise is the stretch of the MIT-BIH
Noise Stress Test recordings kept for tests. Baseline of the noise rows: the same head on the same noisy records after
band-pass and wavelet denoising. Scores of each condition are kept, so a run that was stopped goes on.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from scored import kept_in, kept_scores, shipped_head

from anyecg.beats import find_beats
from anyecg.engine import Model
from anyecg.heads import Head
from anyecg.leads import STANDARD_LEADS
from anyecg.metrics import macro_auroc, patient_bootstrap
from anyecg.record import Record
from anyecg.signals import resample
from anyecg.tasks.arrhythmia import label_scores
from anyecg.training.datasets import (
    READERS_OF,
    SUPERCLASS_DATABASE,
    SUPERCLASSES,
    Corpus,
    Entry,
    load_noise,
    prepare_databases,
)
from anyecg.training.probe import each_auroc, superclass_labels
from anyecg.training.robustness import GAINS, POLARITY, RATES_HZ, SUBSETS, wavelet_denoised, with_noise

N_RECORDS = 300
"""The first so many labelled test records, noisy ones too: at 50 ms each a condition takes a quarter of a minute."""

KINDS = ("em", "ma", "bw")
SNRS_DB = (0.0, 6.0, -6.0, 12.0, 24.0)
"""Hardest to filter and most telling first."""

EXTREME_GAINS = ("unknown", "0.1", "10")
"""Of those that codes are measured with."""

AS_IS = "as recorded"
DENOISED = ", denoised"

Change = Callable[[Entry], Record]
Metric = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Condition:
    """One way to change a record; ``group`` is the table it belongs to, ``name`` its line."""

    group: str
    name: str
    change: Change

    @property
    def file(self) -> str:
        """Name of the file its scores are kept in."""
        return "".join(c if c.isalnum() or c in "-." else "_" for c in f"{self.group}-{self.name}") + ".npz"


def conditions(corpus: Corpus, data: Path, model: Model) -> Iterator[Condition]:
    """Yield every condition; the groups take turns, so that a run that is stopped has something of each."""
    fs_hz = model.checkpoint.preparation.fs_hz
    noise = load_noise(data, "test", model.checkpoint.preparation)
    read = READERS_OF[SUPERCLASS_DATABASE](data / SUPERCLASS_DATABASE)

    def prepared(entry: Entry) -> Record:
        return corpus.record(entry, fs_hz)

    def noisy(kind: str, snr_db: float) -> Change:
        # One generator for each record: the noise of a record does not depend on which were changed before it.
        return lambda e: with_noise(prepared(e), noise[kind], snr_db, np.random.default_rng(seed_of(e.record)))

    def denoised(change: Change) -> Change:
        return lambda e: _denoised(change(e))

    def at_rate(rate_hz: float) -> Change:
        return lambda e: _at_rate(read(e.record)[0], rate_hz)

    def of_leads(leads: tuple[str, ...]) -> Change:
        return lambda e: prepared(e).pick(leads)

    def as_if(change: Callable[[Record], Record]) -> Change:
        return lambda e: change(prepared(e))

    noises = [(kind, snr_db) for snr_db in SNRS_DB for kind in KINDS]
    groups = [
        [Condition("noise", f"{kind} {snr:g} dB", noisy(kind, snr)) for kind, snr in noises],
        [Condition("noise", f"{kind} {snr:g} dB{DENOISED}", denoised(noisy(kind, snr))) for kind, snr in noises],
        [Condition("polarity", name, as_if(change)) for name, change in POLARITY.items() if name != AS_IS],
        [Condition("gain", name, as_if(GAINS[name])) for name in EXTREME_GAINS],
        [Condition("leads", name, of_leads(leads)) for name, leads in SUBSETS.items()],
        [Condition("rate", f"{rate:g} Hz", at_rate(rate)) for rate in RATES_HZ],
        [Condition("clean", AS_IS + DENOISED, denoised(prepared))],
    ]
    yield Condition("clean", AS_IS, prepared)
    for turn in zip_longest(*groups):
        yield from (condition for condition in turn if condition is not None)


def seed_of(name: str) -> int:
    """Return a seed that a record keeps from run to run."""
    return int.from_bytes(name.encode()[-8:], "little")


def _denoised(record: Record) -> Record:
    return record.with_(signal=np.stack([wavelet_denoised(row) for row in record.signal]))


def _at_rate(raw: Record, rate_hz: float) -> Record:
    return raw.with_(signal=resample(raw.signal.astype(np.float64), raw.fs, rate_hz), fs=rate_hz)


# -- the row -------------------------------------------------------------------------------------------------


def run(model: Model, data: Path, work: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Score every record under every condition; after an interrupt (Ctrl-C) return what there is."""
    head = shipped_head(model, SUPERCLASSES)
    if head is None:
        raise SystemExit(f"{model.checkpoint.folder}: no head that tells {', '.join(SUPERCLASSES)}. Fit one first.")
    folder = prepare_databases(data, data / "splits.csv", model.checkpoint.preparation, progress)
    corpus = Corpus(folder, "test", (SUPERCLASS_DATABASE,))
    entries = [e for e in corpus.entries if e.labels and tuple(e.leads) == STANDARD_LEADS][:N_RECORDS]
    kept = kept_in(work, model, False, head) / f"{len(entries)}-records"
    columns = [[label.code for label in head.labels].index(name) for name in SUPERCLASSES]
    scores: dict[tuple[str, str], np.ndarray] = {}
    wanted = list(conditions(corpus, data, model))
    try:
        for condition in wanted:
            progress(f"{condition.group}: {condition.name}")
            key = (condition.group, condition.name)
            made = kept_scores(kept / condition.file, lambda c=condition: _scores(model, head, entries, c))  # type: ignore[misc]
            scores[key] = made["scores"][:, columns]
    except KeyboardInterrupt:
        progress("stopped: the table says which conditions are missing")
    labels, patients = superclass_labels(entries), np.array([e.patient for e in entries])
    return {
        "split": f"{SUPERCLASS_DATABASE} test, a subset: the first {len(entries)} records with a superclass",
        "n_records": len(entries),
        "n_patients": len(set(patients)),
        "prevalence": dict(zip(SUPERCLASSES, labels.mean(axis=0).round(3).tolist(), strict=True)),
        "head": {"name": head.name, "mode": head.config["mode"]},
        "conditions": measured(labels, scores, patients),
        "missing": [f"{c.group}: {c.name}" for c in wanted if (c.group, c.name) not in scores],
    }


def _scores(model: Model, head: Head, entries: list[Entry], condition: Condition) -> dict[str, np.ndarray]:
    """Return the calibrated probabilities (R, n_labels) as a user would get them from the changed records."""
    found = []
    for entry in entries:
        record = model.prepare(condition.change(entry))
        found.append(label_scores(model, head, model.tokenize(record), find_beats(record), prepared=record))
    return {"scores": np.stack(found)}


def measured(
    labels: np.ndarray, scores: dict[tuple[str, str], np.ndarray], patients: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Return of each group and line the macro AUROC, each class's, and the paired change against the clean records."""
    if ("clean", AS_IS) not in scores:
        return {}
    every = np.arange(len(labels))
    clean = _macro_of(labels, scores["clean", AS_IS])
    found: dict[str, dict[str, Any]] = {}
    for (group, name), changed in scores.items():
        reached = _macro_of(labels, changed)

        def change(rows: np.ndarray, reached: Metric = reached) -> float:
            return reached(rows) - clean(rows)

        found.setdefault(group, {})[name] = {
            "macro_auroc": round(reached(every), 4),
            "interval": _rounded(patient_bootstrap(reached, patients)),
            "change": round(change(every), 4),
            "change_interval": _rounded(patient_bootstrap(change, patients)),
            "each": [round(a, 4) for a in each_auroc(labels, changed)],
        }
    return found


def _macro_of(labels: np.ndarray, scores: np.ndarray) -> Metric:
    """Return the function from rows to the macro AUROC; it remembers, for every bootstrap draws the same patients."""
    known: dict[bytes, float] = {}

    def of_rows(rows: np.ndarray) -> float:
        key = rows.tobytes()
        if key not in known:
            known[key] = macro_auroc(labels[rows], scores[rows])
        return known[key]

    return of_rows


def _rounded(interval: tuple[float, float]) -> list[float]:
    return [round(bound, 4) for bound in interval]


# -- tables --------------------------------------------------------------------------------------------------

TITLES = {
    "clean": "As they are",
    "rate": "Resampled from 500 Hz before anything else",
    "gain": "All amplitudes times; unknown: the encoder is not told that they are in mV",
    "leads": "Fewer leads",
    "polarity": "Inverted, exchanged; the head is not told",
}


def tables(numbers: dict[str, Any]) -> str:
    """Write the tables."""
    prevalence = ", ".join(f"{name} {100 * share:.1f} %" for name, share in numbers["prevalence"].items())
    found = numbers["conditions"]
    lines = [
        f"Split: {numbers['split']}: {numbers['n_records']} records of {numbers['n_patients']} patients, those flagged "
        f"as noisy too. Prevalence: {prevalence}. A constant score has a macro AUROC of 0.500.",
        "",
        f"Scores: probabilities of the head `{numbers['head']['name']}` that ships (its network is "
        f"{numbers['head']['mode']} over the encoder; trees on measured features beside it), macro AUROC of the "
        "five superclasses. It was fitted once, to train records; some of "
        "their views had noise of the same three kinds at 6 to 24 dB mixed in, from another stretch of the recordings, "
        "or lost leads, lead names or the gain. Unlike `anyecg analyze` it looks at every lead, however bad. Change: "
        "against the same records as they are, paired. "
        "Intervals: 95 %, patients drawn with replacement.",
        "",
    ]
    if "noise" in found:
        lines += _noise_table(found["noise"])
    for group, title in TITLES.items():
        if group in found:
            lines += [f"## {title}", "", "| | macro AUROC | change | " + " | ".join(SUPERCLASSES) + " |"]
            lines += ["|---|---|---|" + "---|" * len(SUPERCLASSES)]
            for name, row in found[group].items():
                each = " | ".join(f"{a:.3f}" for a in row["each"])
                lines.append(f"| {name} | {_value(row)} | {_change(row)} | {each} |")
            lines.append("")
    if numbers["missing"]:
        lines += [f"**Not run:** {'; '.join(numbers['missing'])}.", ""]
    lines.append(
        "No published figure uses this protocol: noise is mixed into each lead apart, scaled to that lead's power in "
        "the model's band (0.5-75 Hz), so baseline wander below 0.5 Hz, which the band-pass takes away, does not count."
    )
    return "\n".join(lines)


def _noise_table(rows: dict[str, Any]) -> list[str]:
    """One line a kind and ratio: the model alone beside the same model after wavelet denoising."""
    lines = [
        "## Real noise: bw baseline wander, em electrode motion, ma muscle",
        "",
        "| noise | macro AUROC | change | wavelet-denoised first | change |",
        "|---|---|---|---|---|",
    ]
    for name in sorted((n for n in rows if not n.endswith(DENOISED)), key=_kind_and_ratio):
        denoised = rows.get(name + DENOISED)
        beside = f"{_value(denoised)} | {_change(denoised)}" if denoised else " | "
        lines.append(f"| {name} | {_value(rows[name])} | {_change(rows[name])} | {beside} |")
    return [*lines, ""]


def _kind_and_ratio(name: str) -> tuple[str, float]:
    kind, ratio, _ = name.split(" ")
    return kind, float(ratio)


def _value(row: dict[str, Any]) -> str:
    return f"{row['macro_auroc']:.3f} ({row['interval'][0]:.3f}-{row['interval'][1]:.3f})"


def _change(row: dict[str, Any]) -> str:
    low, high = row["change_interval"]
    return f"{row['change']:+.3f} ({low:+.3f} to {high:+.3f})"
