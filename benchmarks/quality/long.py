"""Row ``long``: atrial fibrillation, its episodes and its burden, and rule-based episodes, in long recordings.

Rhythm from beats alone: the reference beats of day-long records (their signals are not here), and on half-hour records
our own detected beats too. Every method gives a score at each beat; its threshold, and how near two stretches must be
to be one episode, are chosen by the same merit on the same records: split val, and among the equals there split train,
with what was not fitted on the patient. Episodes shorter than 30 s are dropped, with any method.
"""

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import detector
import numpy as np
from baselines.rr_irregularity import COSEN_SPANS, RMSSD_BEATS, BoostedWindows, cosen, rmssd

from anyecg.analysis import analyze
from anyecg.checkpoint import file_sha256
from anyecg.engine import Model
from anyecg.heads import open_head
from anyecg.metrics import patient_bootstrap
from anyecg.tasks.episodes import covered_until, find_beat_episodes, seconds_of
from anyecg.tasks.rhythm import HEAD, SHORTEST_AF_S, EpisodeRule, af_episodes_by, af_probability
from anyecg.training.beat_series import UNKNOWN, BeatSeries, load_series
from anyecg.training.datasets import Corpus, prepare_databases
from anyecg.training.rhythm import (
    choose,
    disturbed,
    episode_counts,
    episode_f1,
    halves,
    long_enough,
    merits,
    seconds_agreed,
)

TRAINED = ("ltafdb", "nsrdb", "mitdb")
OURS = "anyecg (RR networks, episodes by evidence)"
ALONE = "RR networks, threshold alone"
"""Chosen on split val, nothing asked of an episode as a whole."""
KEPT = 2
"""Raise when what is chosen or measured changes: methods measured before are measured again."""
NETWORK_GRID = tuple(round(0.05 * k, 2) for k in range(2, 19))
MARKS = {"B": "B", "T": "T", "VT": "VT", "IVR": "IVR", "SVTA": "SVTA", "AB": "AB", "SBR": "BRADY"}
"""The annotators' rhythm label, and the code of the rule held against it."""
BINS = 1000
DAY_S = 86_400.0

Scorer = Callable[[np.ndarray], np.ndarray]
Method = tuple[Scorer, EpisodeRule]
"""A score at every beat, and how episodes follow from it."""


def run(model: Model, data: Path, work: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure every method on every set of records; a method that was measured before is not again."""
    head = open_head(model.checkpoint.folder, HEAD)
    assert head is not None, f"the checkpoint has no head {HEAD}: anyecg train-heads FOLDER {HEAD}"
    progress("long: reading beats")
    splits = data / "splits.csv"
    test = {name: load_series(data, splits, "test", (name,)) for name in TRAINED}
    val = load_series(data, splits, "val", TRAINED)
    sets = list(_sets(model, data, work, test))
    numbers: dict[str, Any] = {
        "fitted": {"n_train_records": head.config["n_train_records"], "n_val_records": head.config["n_val_records"]},
        "sets": {title: _about(series) for title, series, _ in sets},
        "chosen": {},
        "methods": {},
    }
    for name, make in _methods(head, val, data).items():
        of_head = file_sha256(head.path)[:8] if name in (OURS, ALONE) else ""
        file = work / f"{re.sub('[^a-z]+', '-', name.lower())}{of_head}-{detector.version()}-{KEPT}.json"
        if not file.is_file():
            method = make()
            measured = {title: _measure(method, series, beats) for title, series, beats in sets}
            file.write_text(json.dumps({"chosen": _finite(method[1]), "measured": measured}))
        kept = json.loads(file.read_text())
        numbers["chosen"][name], numbers["methods"][name] = kept["chosen"], kept["measured"]
        progress(f"long: {name} done")
    numbers["rules"] = {name: _rules(test[name]) for name in ("ltafdb", "mitdb")}
    numbers["day"] = _time_of_a_day(head, test["nsrdb"][0])
    return numbers


def _about(series: list[BeatSeries]) -> dict[str, float]:
    return {
        "n_records": len(series),
        "n_patients": len({one.patient for one in series}),
        "hours": float(sum(one.beats_s[-1] for one in series) / 3600),
        "prevalence": float(np.concatenate([one.labels() for one in series]).clip(0).mean()),
    }


def _finite(rule: EpisodeRule) -> dict[str, float]:
    return {name: value for name, value in rule._asdict().items() if math.isfinite(value)}


def _methods(head: Any, val: list[BeatSeries], data: Path) -> dict[str, Callable[[], Method]]:
    """Return how to make each method; the baselines' members, thresholds and joining times are chosen here."""

    @cache
    def series() -> list[BeatSeries]:
        return load_series(data, data / "splits.csv", "train", TRAINED)

    def boosted() -> Method:
        train = series()
        half, scores = halves(train), [np.empty(0)] * len(train)
        for k in (0, 1):
            trees = _boosted([one for one, of in zip(train, half, strict=True) if of != k])
            for i in np.flatnonzero(half == k).tolist():
                scores[i] = trees.score(train[i].beats_s)
        trees = _boosted(train)
        of_val = merits([trees.score(one.beats_s) for one in val], val, NETWORK_GRID)
        return trees.score, choose(of_val, merits(scores, train, NETWORK_GRID))

    return {
        OURS: lambda: (partial(af_probability, head), EpisodeRule.of(head)),
        ALONE: lambda: _best([partial(af_probability, head)], val, thresholds=NETWORK_GRID),
        "RMSSD over mean RR, voting": lambda: _best([partial(rmssd, size=n) for n in RMSSD_BEATS], val, series()),
        "CoSEn, voting": lambda: _best([partial(cosen, span=n) for n in COSEN_SPANS], val, series()),
        "boosted windows, voting": boosted,
    }


def _boosted(series: list[BeatSeries]) -> BoostedWindows:
    return BoostedWindows().fit([one.beats_s for one in series], [one.labels() for one in series])


def _best(
    members: Sequence[Scorer],
    val: list[BeatSeries],
    train: list[BeatSeries] | None = None,
    thresholds: Sequence[float] | None = None,
) -> Method:
    """Choose one of a family of scorers that nothing was fitted to, and its rule, as the model's was chosen."""
    of_val: dict[tuple[int, EpisodeRule], float] = {}
    of_train: dict[tuple[int, EpisodeRule], float] = {}
    for k, scorer in enumerate(members):
        scores = [scorer(one.beats_s) for one in val]
        grid = thresholds or np.quantile(np.concatenate(scores), np.linspace(0.02, 0.5, 17)).tolist()
        of_val |= {(k, rule): merit for rule, merit in merits(scores, val, grid).items()}
        if train:
            found = merits([scorer(one.beats_s) for one in train], train, grid)
            of_train |= {(k, rule): merit for rule, merit in found.items()}
    k, rule = choose(of_val, of_train)
    return members[k], rule


def _sets(
    model: Model, data: Path, work: Path, test: dict[str, list[BeatSeries]]
) -> Iterator[tuple[str, list[BeatSeries], list[np.ndarray]]]:
    """Yield a title, the records, and the beats that the methods see."""
    rng = np.random.default_rng(0)
    days, normal, halves = test["ltafdb"], test["nsrdb"], test["mitdb"]
    yield "ltafdb, reference beats", days, [one.beats_s for one in days]
    yield "ltafdb, beats disturbed", days, [disturbed(one.beats_s, rng) for one in days]
    yield "nsrdb, reference beats", normal, [one.beats_s for one in normal]
    yield "mitdb DS2, reference beats", halves, [one.beats_s for one in halves]
    kept = work / f"our-beats-{detector.version()}.npz"
    if not kept.is_file():
        folder = prepare_databases(data, data / "splits.csv", model.checkpoint.preparation)
        corpus, fs_hz = Corpus(folder, "test", ("mitdb",)), model.checkpoint.preparation.fs_hz
        found = {entry.record: analyze(corpus.record(entry, fs_hz), model).rhythm.r_peaks_s for entry in corpus.entries}
        np.savez(kept, **found)
    with np.load(kept) as beats:
        yield "mitdb DS2, our beats", halves, [beats[one.record] for one in halves]


def _measure(method: Method, series: list[BeatSeries], beats: list[np.ndarray]) -> dict[str, Any]:
    """Measure one method on one set of records."""
    scorer, rule = method
    threshold = rule.threshold
    scores = [np.asarray(scorer(beats_s), dtype=np.float64) for beats_s in beats]
    edges = np.quantile(np.concatenate(scores), np.linspace(0, 1, BINS + 1))[1:-1]
    rows, histograms = [], []
    for one, beats_s, score in zip(series, beats, scores, strict=True):
        found_s = seconds_of(af_episodes_by(rule, beats_s, score), "AFIB")
        any_s = one.spans_s[one.codes == "AFIB"]
        true_s = long_enough(any_s)
        # An episode found where the rhythm is not measured (flutter, say) is neither right nor wrong.
        known_s = one.spans_s[~np.isin(one.codes, UNKNOWN)]
        counted = found_s[np.diff(covered_until(known_s, found_s), axis=1)[:, 0] > 0]
        labels, bins = one.labels(beats_s), np.searchsorted(edges, score)
        histograms.append([np.bincount(bins[labels == k], minlength=BINS) for k in (0, 1)])
        seconds = seconds_agreed(one, found_s)
        known = sum(seconds.values())
        rows.append(
            {
                **seconds,
                **episode_counts(true_s, any_s, counted),
                **{f"half_{k}": v for k, v in episode_counts(true_s, any_s, counted, 0.5).items()},
                "beats_tp": int(((score >= threshold) & (labels == 1)).sum()),
                "beats_p": int((labels == 1).sum()),
                "beats_tn": int(((score < threshold) & (labels == 0)).sum()),
                "beats_n": int((labels == 0).sum()),
                "burden": 100 * (seconds["tp"] + seconds["fn"]) / known,
                "burden_found": 100 * (seconds["tp"] + seconds["fp"]) / known,
            }
        )
    table = {name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]}
    counts = np.array(histograms, dtype=np.float64)  # (records, 2, bins)
    patients = np.array([one.patient for one in series])
    measured: dict[str, Any] = {"per_record": {name: values.tolist() for name, values in table.items()}}
    for name, metric in _metrics(table, counts).items():
        value = metric(np.arange(len(rows)))
        known = np.isfinite(value)  # sensitivity, say, is not, where nobody has fibrillation
        interval = patient_bootstrap(metric, patients, 300) if known else None
        measured[name] = {"value": value if known else None, "interval": interval}
    return measured


def _metrics(table: dict[str, np.ndarray], counts: np.ndarray) -> dict[str, Callable[[np.ndarray], float]]:
    """Return each metric as a function of the rows (records) it is computed on."""

    def ratio(above: str, *below: str) -> Callable[[np.ndarray], float]:
        def metric(rows: np.ndarray) -> float:
            whole = sum(table[name][rows].sum() for name in below)
            return float(table[above][rows].sum() / whole) if whole else float("nan")

        return metric

    def f1(prefix: str) -> Callable[[np.ndarray], float]:
        names = ("true", "true_hit", "found", "found_hit")
        return lambda rows: episode_f1({name: int(table[prefix + name][rows].sum()) for name in names})

    def area(rows: np.ndarray) -> float:
        negative, positive = counts[rows].sum(axis=0)
        if not negative.sum() or not positive.sum():
            return float("nan")
        below = np.cumsum(negative) - negative
        return float((positive * (below + negative / 2)).sum() / (positive.sum() * negative.sum()))

    def per_day(name: str) -> Callable[[np.ndarray], float]:
        def metric(rows: np.ndarray) -> float:
            clean_s = (table["fp"] + table["tn"])[rows].sum()
            return float(table[name][rows].sum() / clean_s * DAY_S) if clean_s else float("nan")

        return metric

    table["false_episodes"] = table["found"] - table["found_hit"]
    table["false_minutes"] = table["fp"] / 60
    return {
        "beat_auroc": area,
        "beat_sensitivity": ratio("beats_tp", "beats_p"),
        "beat_specificity": ratio("beats_tn", "beats_n"),
        "time_sensitivity": ratio("tp", "tp", "fn"),
        "time_precision": ratio("tp", "tp", "fp"),
        "episode_sensitivity": ratio("true_hit", "true"),
        "episode_precision": ratio("found_hit", "found"),
        "episode_f1": f1(""),
        "episode_f1_half": f1("half_"),
        "burden_error": lambda rows: float(np.abs(table["burden"] - table["burden_found"])[rows].mean()),
        "false_episodes_per_day": per_day("false_episodes"),
        "false_minutes_per_day": per_day("false_minutes"),
    }


def _rules(series: list[BeatSeries]) -> dict[str, Any]:
    """Hold rule-based episodes, from reference beats and their classes, against the annotators' rhythm marks."""
    totals: dict[str, dict[str, float]] = {}
    for one in series:
        found = find_beat_episodes(one.beats_s, one.classes)
        for label, code in MARKS.items():
            marked_s = one.spans_s[one.codes == label]
            found_s = seconds_of(found, code)
            row = {"records": int(len(marked_s) > 0), "marked_s": float(np.diff(marked_s, axis=1).sum())}
            row |= episode_counts(marked_s, marked_s, found_s)
            of_long = episode_counts(long_enough(marked_s), marked_s, found_s)
            row |= {f"long_{name}": n for name, n in of_long.items()}
            into = totals.setdefault(label, dict.fromkeys(row, 0))
            for name, value in row.items():
                into[name] += value
    return totals


def _time_of_a_day(head: Any, one: BeatSeries) -> dict[str, float]:
    af_probability(head, one.beats_s[:100])  # opens the graph
    times = []
    for _ in range(3):
        start = time.perf_counter()
        af_probability(head, one.beats_s)
        times.append(time.perf_counter() - start)
    return {"n_beats": len(one.beats_s), "hours": one.beats_s[-1] / 3600, "seconds": float(np.median(times))}


def tables(numbers: dict[str, Any]) -> str:
    """Return the row's tables as Markdown."""
    fitted = numbers["fitted"]
    chosen = "; ".join(_said(name, EpisodeRule(**rule)) for name, rule in numbers["chosen"].items())
    parts = [
        "## Atrial fibrillation, its episodes and its burden",
        f"Split test, by patient; fitted on {fitted['n_train_records']} records of split train (ltafdb, nsrdb, mitdb"
        f" DS1). Thresholds, joining and least evidence are chosen on {fitted['n_val_records']} records of split val "
        "(ltafdb, nsrdb) and, among what is equal there, on the train records; what is fitted is fitted on one half "
        f"of the train patients to score the other there. *{ALONE}* is chosen on val alone. "
        "95 % intervals: records drawn by patient, 300 rounds. *Beats*: score at each beat against its threshold. "
        f"*Time*, *episodes*, *burden*: after merging, episodes under {SHORTEST_AF_S:g} s dropped. Episodes by "
        "overlap, as in ANSI/AAMI EC57: a marked episode of 30 s or more is found if any of it is; one found is right "
        "if it touches any mark of atrial fibrillation. So a method that breaks one marked episode into many is the "
        "more precise for it: the last column counts them. F1 (half): at least half of each must be covered. Burden "
        "error: mean absolute "
        "difference of the share of time, percentage points a record. Time in flutter, ventricular flutter, nodal "
        "rhythm and block is left out. *Beats disturbed*: up to 5 % missed, up to 5 % invented, in half of the "
        "records.",
        f"Threshold and joining time: {chosen}.",
    ]
    for title, group in numbers["sets"].items():
        methods = {name: measured[title] for name, measured in numbers["methods"].items()}
        parts += [
            f"### {title}",
            f"{group['n_records']} records, {group['n_patients']} patients, {group['hours']:.0f} h, "
            f"{100 * group['prevalence']:.1f} % of beats in atrial fibrillation.",
            _table(methods, _COLUMNS if group["prevalence"] > 0 else _COLUMNS_WITHOUT),
        ]
    parts += ["## Episodes by rule, from reference beats and their classes", _RULES_NOTE]
    for name, rules in numbers["rules"].items():
        parts += [f"### {name}, split test", _rules_table(rules)]
    day = numbers["day"]
    parts += [
        f"Probability at each of {day['n_beats']} beats ({day['hours']:.1f} h): {day['seconds']:.2f} s on one "
        "thread, on a machine that had other work.",
        _ANCHORS,
    ]
    return "\n\n".join(parts)


_COLUMNS = {
    "beat_auroc": "beats AUROC",
    "beat_sensitivity": "beats Se",
    "beat_specificity": "beats Sp",
    "time_sensitivity": "time Se",
    "time_precision": "time PPV",
    "episode_sensitivity": "episodes Se",
    "episode_precision": "episodes PPV",
    "episode_f1": "episodes F1",
    "episode_f1_half": "F1 (half)",
    "burden_error": "burden error, pp",
    "false_episodes_per_day": "false episodes a day without AF",
}
_COLUMNS_WITHOUT = {
    "beat_specificity": "beats Sp",
    "burden_error": "burden error, pp",
    "false_episodes_per_day": "false episodes a day",
    "false_minutes_per_day": "false minutes a day",
}
_RULES_NOTE = (
    "The annotators' marks of these databases follow rules much like ours, so this shows that ours do what they "
    "say, not that they are right. Couplets, pauses and tachycardia have no marks. `SBR` is held against our "
    "`BRADY`, which asks for 30 s below 50 a minute, in fibrillation too; the annotators mark from three beats on."
)
_ANCHORS = (
    "Published anchors. Zhou 2015 (doi:10.1371/journal.pone.0136544; entropy of symbolic heart rate, RR intervals "
    "alone, windows, threshold fitted on all of ltafdb) has, by beats, Se .961 and Sp .957 on ltafdb itself, .978 "
    "and .874 on all of mitdb, Sp .997 on nsrdb. RawECGNet (arXiv 2401.05411) has F1 .91 to .94 by windows on two "
    "external Holter sets, and its RR-based rival ArNet2 .89 to .91; both were trained on far more patients and "
    "count flutter as positive. Here 12 patients of ltafdb carry the figures, 5 records those of mitdb."
)


def _said(name: str, rule: EpisodeRule) -> str:
    asked = f", CoSEn + {rule.log_odds_weight:g} mean log odds >= {rule.least_evidence:g}"
    return f"{name}: {rule.threshold:.3g}, {rule.join_s:g} s{asked if math.isfinite(rule.least_evidence) else ''}"


def _table(methods: dict[str, Any], columns: dict[str, str]) -> str:
    lines = ["| method | " + " | ".join(columns.values()) + " | found: right, false |"]
    lines.append("|---" * (len(columns) + 2) + "|")
    for name, measured in methods.items():
        cells = [_cell(measured[column], column) for column in columns]
        found, right = (int(sum(measured["per_record"][name])) for name in ("found", "found_hit"))
        cells.append(f"{right}, {found - right}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(measured: dict[str, Any], column: str) -> str:
    digits = 2 if column in ("burden_error", "false_episodes_per_day", "false_minutes_per_day") else 3
    low, high = measured["interval"]
    return f"{measured['value']:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def _rules_table(rules: dict[str, Any]) -> str:
    lines = [
        "| mark | rule | records | marked | Se | marked 30 s and more | Se | found | PPV |",
        "|---" * 9 + "|",
    ]
    for label, r in rules.items():
        if r["true"] or r["found"]:
            cells = [label, MARKS[label], r["records"], r["true"], _share(r["true_hit"], r["true"])]
            cells += [r["long_true"], _share(r["long_true_hit"], r["long_true"])]
            cells += [r["found"], _share(r["found_hit"], r["found"])]
            lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.3f}" if whole else "-"
