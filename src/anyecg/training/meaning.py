"""What rhythm codes tell: fragments beside what the databases say of them, and how much of it the first level knows.

`look` collects fragments, their codes and their labels. `evaluate_meaning` measures on *test* patients how much of
wave, beat and rhythm the codes tell, beside k-means on the same raw fragments and a shuffled control.

Shapes: N fragments, S samples, V codes, C clusters, L leads, P fragments of a record.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.engine import Model
from anyecg.errors import ReadError
from anyecg.report.atlas import KINDS, LEAST_FRAGMENTS
from anyecg.tokens import Tokens, to_fragments, to_timeline
from anyecg.training.datasets import (
    BEATS_DATABASE,
    SINGLE_LEAD_DATABASE,
    SUPERCLASS_DATABASE,
    SUPERCLASSES,
    WAVES_DATABASE,
    Corpus,
    Entry,
)
from anyecg.training.marks import (
    BEAT_CLASSES,
    LEAST_OVERLAP_S,
    WAVES,
    beat_held,
    read_beats,
    read_waves,
    waves_held,
)

SEED = 0

TOLD = {
    "overlap": ("beat", *WAVES),
    "wave": KINDS,
    "peaks": ("none", "P", "QRS", "P+QRS", "T", "P+T", "QRS+T", "P+QRS+T"),
    "beat": tuple(BEAT_CLASSES),
    "rhythm": ("N", "A", "O", "~"),
    "diagnosis": SUPERCLASSES,
    "sex": ("female", "male"),
    "age": ("under 40", "40-59", "60-79", "80 and over"),
}
"""What may be known of a fragment, and the labels of each."""

AGE_EDGES = (40, 60, 80)


@dataclass(frozen=True)
class Sample:
    """How much of a database is looked at: this many records, chosen by chance, and their first seconds."""

    n_records: int
    longest_s: float


FITTING_SAMPLES = {
    WAVES_DATABASE: Sample(200, 10.0),
    BEATS_DATABASE: Sample(50, 300.0),
    SINGLE_LEAD_DATABASE: Sample(500, 60.0),
}
TEST_SAMPLES = {
    WAVES_DATABASE: Sample(200, 10.0),
    BEATS_DATABASE: Sample(50, 600.0),
    SINGLE_LEAD_DATABASE: Sample(600, 60.0),
}
"""About 80,000 and 90,000 fragments: each a minute or so on two idle cores."""

FRAGMENTS_A_DATABASE = 10_000
"""k-means is fitted on at most so many training fragments of each database, alike many."""

SHUFFLES = 5


@dataclass(frozen=True, eq=False)
class Seen:
    """Fragments of some records, one a row.

    Parameters
    ----------
    codes : ndarray of int64, shape (N,)
        First level.
    samples : ndarray of float32, shape (N, S)
        As the tokenizer is given them: in units of the block's scale.
    decoded : ndarray of float32, shape (N, S), or None
        What the decoder makes of the first level alone.
    lead : ndarray of int, shape (N,)
        A number for each lead of each record.
    record, patient : ndarray of str, shape (N,)
    labels : dict of ndarray of int8, shape (N, n_labels)
        For each name of `TOLD`: 1 yes, 0 no, -1 not known.
    """

    codes: np.ndarray
    samples: np.ndarray
    decoded: np.ndarray | None
    lead: np.ndarray
    record: np.ndarray
    patient: np.ndarray
    labels: dict[str, np.ndarray]


# -- looking at records --------------------------------------------------------------------------------------


def look(
    model: Model,
    corpus: Corpus,
    data: Path,
    sample: Sample,
    decode: Callable[[Tokens], np.ndarray] | None = None,
) -> Seen:
    """Tokenise some records of one database and collect their recorded fragments.

    Parameters
    ----------
    corpus : Corpus
        Of one database and one split.
    data : Path
        The restored databases, for the files of marks.
    decode : callable, optional
        From tokens to decoded fragments (L, P, S).
    """
    chosen = np.random.default_rng(SEED).permutation(len(corpus.entries))[: sample.n_records]
    grid = model.checkpoint.grid
    parts: list[Seen] = []
    n_leads = 0
    for entry in (corpus.entries[i] for i in sorted(chosen.tolist())):
        record = corpus.record(entry, grid.fs_hz)
        record = record.with_(signal=record.signal[:, : round(sample.longest_s * grid.fs_hz)])
        fragments = to_fragments(record, grid)
        if not fragments.valid.any():
            continue
        tokens = model.tokenize(record)
        valid = tokens.valid
        samples = to_timeline(fragments.samples, valid.shape[1])
        parts.append(
            Seen(
                codes=tokens.codes[..., 0][valid].astype(np.int64),
                samples=samples[valid],
                decoded=None if decode is None else decode(tokens)[valid],
                lead=np.broadcast_to(n_leads + np.arange(len(valid))[:, None], valid.shape)[valid],
                record=np.full(valid.sum(), f"{entry.database}/{entry.record}"),
                patient=np.full(valid.sum(), entry.patient),
                labels={name: of[valid] for name, of in labels_of(data, entry, tokens).items()},
            )
        )
        n_leads += len(valid)
    if not parts:
        raise ReadError("no recorded fragment found, expected prepared records. Restore the databases.")
    return joined(parts)


def joined(parts: list[Seen]) -> Seen:
    """Put rows below each other; what one part was not told of is not known (-1). Leads keep their numbers apart."""
    names = {name for part in parts for name in part.labels}
    labels = {
        name: np.concatenate(
            [p.labels.get(name, np.full((len(p.codes), len(TOLD[name])), -1, dtype=np.int8)) for p in parts]
        )
        for name in names
    }
    decoded = [p.decoded for p in parts if p.decoded is not None]
    return Seen(
        codes=np.concatenate([p.codes for p in parts]),
        samples=np.concatenate([p.samples for p in parts]),
        decoded=np.concatenate(decoded) if len(decoded) == len(parts) else None,
        lead=np.concatenate([p.lead for p in parts]),
        record=np.concatenate([p.record for p in parts]),
        patient=np.concatenate([p.patient for p in parts]),
        labels=labels,
    )


def labels_of(data: Path, entry: Entry, tokens: Tokens) -> dict[str, np.ndarray]:
    """Return what the databases tell of each fragment: ``{name of TOLD: int8 (L, P, n_labels)}``, see `Seen`."""
    n_leads, n_fragments = tokens.valid.shape
    fragment_s = tokens.grid.fragment_s
    path = data / entry.database / entry.record
    if entry.database == WAVES_DATABASE:
        by_lead = [waves_held(read_waves(path, lead), n_fragments, fragment_s) for lead in tokens.leads]
        known = np.stack([held.known for held in by_lead])
        reached = np.stack([held.overlap_s for held in by_lead], axis=1) >= LEAST_OVERLAP_S  # (3, L, P)
        beat = np.stack([held.peaks[WAVES.index("QRS")] for held in by_lead])
        found = {
            "overlap": np.stack([beat, *reached], axis=-1).astype(np.int8),
            "wave": _one_hot(np.stack([held.kind() for held in by_lead]), len(TOLD["wave"])),
            "peaks": _one_hot(np.stack([held.kinds_of_peaks() for held in by_lead]), len(TOLD["peaks"])),
        }
        return {name: np.where(known[..., None], of, np.int8(-1)) for name, of in found.items()}
    if entry.database == BEATS_DATABASE:
        held_class = beat_held(*read_beats(path), n_fragments, fragment_s)
        return {"beat": _one_hot(np.tile(held_class, (n_leads, 1)), len(TOLD["beat"]))}
    of_record: dict[str, np.ndarray] = {}
    if entry.database == SINGLE_LEAD_DATABASE:
        of_record["rhythm"] = _one_hot(np.array(TOLD["rhythm"].index(entry.labels[0])), len(TOLD["rhythm"]))
    elif entry.database == SUPERCLASS_DATABASE:
        # A record none of whose statements has a superclass has not been told to be free of them.
        named = [name in entry.labels for name in SUPERCLASSES]
        of_record["diagnosis"] = np.array(named if entry.labels else [-1] * len(named), dtype=np.int8)
        sex = -1 if entry.sex is None else TOLD["sex"].index(entry.sex)
        of_record["sex"] = _one_hot(np.array(sex), len(TOLD["sex"]))
        age = -1 if entry.age is None else int(np.searchsorted(AGE_EDGES, entry.age, side="right"))
        of_record["age"] = _one_hot(np.array(age), len(TOLD["age"]))
    return {name: np.tile(of, (n_leads, n_fragments, 1)) for name, of in of_record.items()}


def _one_hot(labels: np.ndarray, n_labels: int) -> np.ndarray:
    """Turn label numbers (...) into int8 (..., n_labels); -1 stays -1 throughout."""
    hot = (labels[..., None] == np.arange(n_labels)).astype(np.int8)
    hot[labels < 0] = -1
    return hot


# -- how much codes tell -------------------------------------------------------------------------------------

TASKS = {
    "wave": (WAVES_DATABASE, "the wave that overlaps the fragment most"),
    "peaks": (WAVES_DATABASE, "which of P, QRS and T have their peak in the fragment"),
    "beat": (BEATS_DATABASE, "class of the beat whose R peak the fragment holds"),
    "rhythm": (SINGLE_LEAD_DATABASE, "rhythm of the whole record"),
}
LEFT_OUT = {"rhythm": ("~",)}
"""Noise is no rhythm."""

RULES = {
    "wave": f"largest overlap in time among the marked P, QRS and T; none if no wave reaches {LEAST_OVERLAP_S:g} s "
    "into the fragment; fragments not wholly between a lead's first and last mark are left out",
    "peaks": "the set of marked peaks inside; the same fragments",
    "beat": "fragments that hold an R peak; of two, the beat nearest to the middle counts; every lead; paced records "
    "out",
    "rhythm": "every fragment has its record's label; noise (~) left out",
}


def evaluate_meaning(
    model: Model,
    folder: Path,
    data: Path,
    progress: Callable[[str], None],
    fitting: dict[str, Sample] | None = None,
    testing: dict[str, Sample] | None = None,
) -> dict[str, Any]:
    """Measure on test patients how much the codes of the first level tell of wave, beat class and rhythm.

    Beside them: k-means with as many clusters, fitted on training fragments, each scaled as the tokenizer is given it;
    and a control that shuffles away what is to be told.

    Parameters
    ----------
    folder, data : Path
        The prepared and the restored databases.
    fitting, testing : dict of Sample, optional
        How much to look at; default `FITTING_SAMPLES` and `TEST_SAMPLES`.

    Returns
    -------
    dict
        JSON-ready numbers; see `measured` for those of one task.

    Raises
    ------
    ReadError
        A database is missing.
    """
    train = _look_at_all(model, folder, data, "train", fitting or FITTING_SAMPLES, progress)
    test = _look_at_all(model, folder, data, "test", testing or TEST_SAMPLES, progress)
    n_clusters = len(np.unique(np.concatenate([seen.codes for seen in train.values()])))
    progress(f"k-means, {n_clusters} clusters")
    nearest, n_fitted = fitted_kmeans([seen.samples for seen in train.values()], n_clusters)
    tasks = {}
    for task, (database, what) in TASKS.items():
        progress(what)
        clusters = {
            split: {"codes": seen.codes, "k-means": nearest(seen.samples)}
            for split, seen in (("train", train[database]), ("test", test[database]))
        }
        tasks[task] = {
            "database": database,
            "what": what,
            "rule": RULES[task],
            **measured(task, train[database], test[database], clusters),
        }
    return {
        "split": "test patients; k-means and the reading of codes fitted on train patients",
        "fragment_s": model.checkpoint.grid.fragment_s,
        "codebook_size": int(model.checkpoint.config["model"]["tokenizer"]["codebook_size"]),
        "n_clusters": n_clusters,
        "n_fitted": n_fitted,
        "tasks": tasks,
    }


def _look_at_all(
    model: Model, folder: Path, data: Path, split: str, samples: dict[str, Sample], progress: Callable[[str], None]
) -> dict[str, Seen]:
    seen = {}
    for database, sample in samples.items():
        corpus = Corpus(folder, split, (database,))
        if not corpus.entries:
            raise ReadError(f"{data / database}: no {split} records found, expected some. Restore that database.")
        progress(f"{database}: {min(sample.n_records, len(corpus))} {split} records")
        seen[database] = look(model, corpus, data, sample)
    return seen


def fitted_kmeans(parts: list[np.ndarray], n_clusters: int) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """Fit k-means on alike many fragments (n, S) of each part; return a function to cluster numbers, and how many."""
    from sklearn.cluster import KMeans

    rng = np.random.default_rng(SEED)
    chosen = np.concatenate([part[rng.permutation(len(part))[:FRAGMENTS_A_DATABASE]] for part in parts])
    # 50 rounds of Lloyd's algorithm: by then less than one fragment in a hundred changes its cluster.
    model = KMeans(n_clusters, n_init=1, max_iter=50, random_state=SEED).fit(chosen)
    return lambda samples: model.predict(samples).astype(np.int64), len(chosen)


def measured(task: str, train: Seen, test: Seen, clusters: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    """Return one task's numbers.

    Parameters
    ----------
    clusters : dict
        ``{"train" | "test": {"codes" | "k-means": cluster numbers (N,)}}``, of the rows of ``train`` and ``test``.

    Returns
    -------
    dict
        ``labels`` with share and fragments, numbers of fragments and patients; ``clusters``: for codes and k-means
        ``nmi``, ``told`` (share of the label's entropy), both also ``_shuffled``; ``ami`` and its ``interval``;
        ``read_right`` (mean over the labels of the share of fragments whose code is *read* as their label, a code being
        read as the label it is most enriched for in train) and its interval; ``gain``: AMI of codes less that of
        k-means, and its interval; ``chance_read``.
    """
    names = [name for name in TOLD[task] if name not in LEFT_OUT.get(task, ())]
    keep = {split: _labelled(seen, task, len(names)) for split, seen in (("train", train), ("test", test))}
    rows, truth = keep["test"]
    train_rows, train_truth = keep["train"]
    if not len(rows) or not len(train_rows):
        raise ReadError(f"{task}: no labelled fragment found, expected some in train and in test. Restore the marks.")
    _, patient = np.unique(test.patient[rows], return_inverse=True)
    n_clusters = 1 + max(int(x.max()) for of in clusters.values() for x in of.values())
    n_of = np.bincount(truth, minlength=len(names))
    judged = n_of >= LEAST_FRAGMENTS
    tables, found = {}, {}
    for name, of_test in clusters["test"].items():
        chosen = of_test[rows]
        table = contingency(patient, chosen, truth, n_clusters, len(names))  # (patients, C, labels)
        tables[name] = table
        nmi, told = information(table.sum(axis=0))
        shuffled = np.mean(
            [
                information(contingency(np.zeros_like(patient), *pair, n_clusters, len(names))[0])
                for pair in _shuffled(task, test, rows, chosen, truth)
            ],
            axis=0,
        )
        trained = contingency(
            np.zeros_like(train_truth), clusters["train"][name][train_rows], train_truth, n_clusters, len(names)
        )[0]
        read = (trained / np.maximum(trained.sum(axis=0), 1)).argmax(axis=1)  # (C,)

        def right(table: np.ndarray, read: np.ndarray = read) -> float:
            return mean_recall(table, read, judged)

        found[name] = {
            "nmi": round(nmi, 4),
            "ami": round(adjusted_information(table.sum(axis=0)), 4),
            "interval": jackknife_interval(adjusted_information, table),
            "told": round(told, 4),
            "nmi_shuffled": round(float(shuffled[0]), 4),
            "told_shuffled": round(float(shuffled[1]), 4),
            "read_right": round(right(table.sum(axis=0)), 4),
            "read_right_interval": jackknife_interval(right, table),
        }
    both = np.concatenate([tables["codes"], tables["k-means"]], axis=1)

    def difference(table: np.ndarray) -> float:
        return adjusted_information(table[:n_clusters]) - adjusted_information(table[n_clusters:])

    return {
        "n_fragments": len(rows),
        "n_records": len(np.unique(test.record[rows])),
        "n_patients": int(patient.max()) + 1,
        "labels": {name: [round(n / len(rows), 4), int(n)] for name, n in zip(names, n_of.tolist(), strict=True)},
        "clusters": found,
        "gain": {"ami": round(difference(both.sum(axis=0)), 4), "interval": jackknife_interval(difference, both)},
        "chance_read": round(1 / max(int(judged.sum()), 1), 4),
        "control": "labels exchanged between records" if task == "rhythm" else "clusters shuffled in time in each lead",
    }


def _labelled(seen: Seen, task: str, n_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows with a known label among the first ``n_labels``, and their labels (n,)."""
    hot = seen.labels[task][:, :n_labels]
    rows = np.flatnonzero(hot.max(axis=1) == 1)
    return rows, hot[rows].argmax(axis=1)


def _shuffled(
    task: str, test: Seen, rows: np.ndarray, chosen: np.ndarray, truth: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield clusters and labels of the control, a few times: what is left is bias, and what the record alone tells.

    A label of the whole record survives any shuffling in time: there, the records exchange their labels.
    """
    rng = np.random.default_rng(SEED)
    for _ in range(SHUFFLES):
        if task == "rhythm":
            yield chosen, exchanged_between(test.record[rows], truth, rng)
        else:
            yield shuffled_within(test.lead[rows], chosen, rng), truth


def shuffled_within(group: np.ndarray, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return values (n,) in which each group's (n,) have changed places among themselves."""
    shuffled = np.empty_like(values)
    shuffled[np.argsort(group, kind="stable")] = values[np.lexsort((rng.random(len(group)), group))]
    return shuffled


def exchanged_between(group: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return labels (n,), one a group (n,), after the groups have exchanged theirs."""
    _, first, member = np.unique(group, return_index=True, return_inverse=True)
    return labels[first][rng.permutation(len(first))][member]


def contingency(
    patient: np.ndarray, cluster: np.ndarray, label: np.ndarray, n_clusters: int, n_labels: int
) -> np.ndarray:
    """Count fragments by patient, cluster and label (n,): int64 (n_patients, n_clusters, n_labels)."""
    n_patients = int(patient.max()) + 1
    flat = (patient * n_clusters + cluster) * n_labels + label
    counts = np.bincount(flat, minlength=n_patients * n_clusters * n_labels)
    return counts.reshape(n_patients, n_clusters, n_labels)


def information(table: np.ndarray) -> tuple[float, float]:
    """Return how much clusters tell of labels, from counts (n_clusters, n_labels).

    Returns
    -------
    nmi : float
        Normalised mutual information, 2 I / (H(cluster) + H(label)): scikit-learn's ``normalized_mutual_info_score``.
        Many clusters keep it low: with 256 equally used clusters and two equally frequent labels it is at most 0.22.
    told : float
        Share of the label's entropy that the cluster tells, I / H(label): scikit-learn's ``homogeneity_score``.
        Both are 0 where there is only one label, which leaves nothing to tell.
    """
    p = table / max(table.sum(), 1)
    h_joint, h_cluster, h_label = (_entropy(q) for q in (p, p.sum(axis=1), p.sum(axis=0)))
    mutual = max(h_cluster + h_label - h_joint, 0.0)
    if h_label <= 0:
        return 0.0, 0.0
    return 2 * mutual / (h_cluster + h_label), mutual / h_label


def adjusted_information(table: np.ndarray) -> float:
    """Return the adjusted mutual information, from counts (n_clusters, n_labels).

    Many clusters seem to tell something of any label, by chance alone; here what chance would tell is taken off, so
    that 0 is chance and 1 is all (Vinh 2010, JMLR 11:2837-2854): scikit-learn's ``adjusted_mutual_info_score``, but 0
    where there is only one label.
    """
    from sklearn.metrics.cluster import expected_mutual_information

    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 0.0
    p = table / table.sum()
    h_joint, h_cluster, h_label = (_entropy(q) for q in (p, p.sum(axis=1), p.sum(axis=0)))
    by_chance = expected_mutual_information(table.astype(np.int64), int(table.sum()))
    room = (h_cluster + h_label) / 2 - by_chance
    return float((h_cluster + h_label - h_joint - by_chance) / room) if room > 1e-12 else 0.0


def _entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def mean_recall(table: np.ndarray, read: np.ndarray, judged: np.ndarray) -> float:
    """Return the mean share, over the ``judged`` labels present, of fragments whose cluster is ``read`` as their label.

    Parameters
    ----------
    table : ndarray, shape (n_clusters, n_labels)
    read : ndarray of int, shape (n_clusters,)
        The label each cluster is read as.
    judged : ndarray of bool, shape (n_labels,)
    """
    right = np.array([table[read == k, k].sum() for k in range(table.shape[1])])
    total = table.sum(axis=0)
    counted = judged & (total > 0)
    return float((right[counted] / total[counted]).mean()) if counted.any() else 0.0


def jackknife_interval(metric: Callable[[np.ndarray], float], tables: np.ndarray) -> list[float]:
    """Return the 95 % interval of ``metric(tables.sum(axis=0))`` by leaving out one patient at a time.

    Not a bootstrap: drawing patients twice repeats their fragments, and repeated fragments raise mutual information by
    themselves, so that the estimate would lie below its own interval.

    Parameters
    ----------
    metric : callable
        From counts (n_clusters, n_labels) to a number.
    tables : ndarray, shape (n_patients, n_clusters, n_labels)
    """
    from scipy.stats import t

    total, n = tables.sum(axis=0), len(tables)
    value = metric(total)
    without = np.array([metric(total - one) for one in tables])
    error = np.sqrt((n - 1) / n * np.square(without - without.mean()).sum())
    reach = float(t.ppf(0.975, max(n - 1, 1)) * error)
    return [round(value - reach, 4), round(value + reach, 4)]
