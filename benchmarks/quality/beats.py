"""Row ``beats``: AAMI classes of beats between patients, DS1 -> DS2 of the MIT-BIH Arrhythmia Database.

Protocol of de Chazal 2004 (doi:10.1109/TBME.2004.827359): 22 records to learn from (21 here: 201 is withdrawn, its
patient is also record 202 of DS2), 22 to measure on, paced records out, no beat of a test patient is learned from. On
the marked R peaks, as usual; and end to end on those we find, where missed and false beats count.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import detector
import numpy as np
from baselines.beat_features import BASELINES, fit_predict, raw_features

from anyecg.analysis import analyze
from anyecg.engine import Model
from anyecg.heads import Head, open_head
from anyecg.metrics import match_events, patient_bootstrap
from anyecg.record import Record
from anyecg.tasks.beat_classes import CLASSES, FEWEST_BEATS, HEAD, beat_inputs, class_probabilities, decide
from anyecg.tasks.beat_rr import N_RR_FEATURES
from anyecg.training.beat_classes import (
    choose_decision,
    class_scores,
    fit_and_calibrate,
    folds_of,
    left_out,
    load_beats,
)
from anyecg.training.beat_network import Beats, probabilities
from anyecg.training.datasets import Corpus, prepare_databases
from anyecg.training.marks import read_beats

DATABASE = "mitdb"
TOLERANCE_S = 0.15
CUT_S, CUT_EVERY = 10.0, 4
RR_FEATURES_OF_OLD = 30  # kept results that do not say how many there were
MISSED = -1  # in what was found: a beat that was not; in the truth: a beat that is none

ANCHORS = """Published on DS2, on marked R peaks: de Chazal 2004 S Se/PPV .759/.385, V .777/.819; later fully automatic
methods S .777/.385 to .889/.926 (the latter disputed), V about .85/.93; best j-kappa .773. What differs: they learn
from 22 records (with 201, whose patient is in DS2), ours from 21 and, where said, from day-long RR annotations and
recordings in fibrillation of other patients; and by EC57 they do not count a fusion or unclassifiable beat that is
called V as false: column "V PPV, EC57". All other columns count every wrong beat."""


WHY_NOT = """That record is of a sick sinus node: four beats in five are premature atrial ones, in runs between pauses,
so that the usual RR interval and the dominant P wave are theirs. What the head does about it, all of it chosen on
patients left out: RR intervals are also set beside high quantiles and the longest nearby; trees that saw day-long
annotations of other patients weigh them; P waves that are alike speak against fibrillation, for which RR intervals
alone may take such a record. The rest of the wave is still compared with the dominant beat."""


Found = dict[str, tuple[np.ndarray, np.ndarray]]
"""By record: the true class of each beat, and what was found."""


def run(model: Model, data: Path, work: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure our head, its variants and the baselines on DS2."""
    fs_hz = model.checkpoint.preparation.fs_hz
    folder = prepare_databases(data, data / "splits.csv", model.checkpoint.preparation, progress)
    test = Corpus(folder, "test", (DATABASE,))
    head, found, p = _ours(model, test, data, work, progress)
    truth = np.concatenate([t for t, _ in found["ours"].values()])
    others, not_run = _alternatives(folder, data, fs_hz, test, work, progress)
    found |= others
    found["all beats N"] = {name: (t, np.zeros_like(t)) for name, (t, _) in found["ours"].items()}
    return {
        "split": "DS2: 22 records of 22 patients, 2 leads, half an hour each; paced records out",
        "n_patients": len(test),
        "not_run": not_run,
        "prevalence": {name: int((truth == k).sum()) for k, name in enumerate(CLASSES)},
        "calibration_ece": _ece(p, truth),
        "head": {key: head.config[key] for key in ("trained_on", "n_patients", "decision", "left_out_scores")},
        "methods": {name: scores(records) for name, records in found.items()},
        "but_the_richest": {name: _but_the_richest(records) for name, records in found.items()},
        "per_record": {
            name: {"N S V F Q": np.bincount(t, minlength=5).tolist(), "confusion": confusion(t, f).tolist()}
            for name, (t, f) in found["ours"].items()
        },
        "embedding": _embedding(model, folder, data, fs_hz, work, progress),
    }


# -- ours ----------------------------------------------------------------------------------------------------


def _ours(
    model: Model, test: Corpus, data: Path, work: Path, progress: Callable[[str], None]
) -> tuple[Head, dict[str, Found], np.ndarray]:
    """Return the head, what it finds in the test records in four ways, and its probabilities in the first."""
    head = open_head(model.checkpoint.folder, HEAD)
    if head is None:
        raise SystemExit("the checkpoint has no head 'beats': anyecg.training.beat_classes.train_beats writes it")
    decision = "".join(f"{name}{value:g}" for name, value in head.config["decision"].items())
    kept = work / f"ours-{head.config['files'][f'{HEAD}.onnx'][:8]}-{decision}-{detector.version()}"
    kept.mkdir(exist_ok=True)
    ways = ("ours", "ours, first lead alone", "ours, in cuts of 10 s", "ours, end to end")
    found: dict[str, Found] = {name: {} for name in ways}
    p_ours = []
    for entry in test.entries:
        path = kept / f"{entry.record}.npz"
        if not path.is_file():
            progress(f"test record {entry.record}")
            record = test.record(entry, model.checkpoint.preparation.fs_hz)
            np.savez(path, **_of_record(model, head, record, *read_beats(data / DATABASE / entry.record)))
        with np.load(path) as saved:
            p_ours.append(saved["p"])
            for number, name in enumerate(ways):
                found[name][entry.record] = (saved[f"truth{number}"], saved[f"found{number}"])
    return head, found, np.concatenate(p_ours)


def _of_record(model: Model, head: Head, record: Record, at_s: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Return the probabilities of one record's marked beats, and truth and found of each of the four ways."""
    p = class_probabilities(head, beat_inputs(record, at_s))
    answers = (
        (truth, decide(p, head.config["decision"])),
        (truth, _told(head, record.pick(record.leads[:1]), at_s)),
        _in_cuts(head, record, at_s, truth),
        _end_to_end(model, record, at_s, truth),
    )
    parts = {f"truth{number}": t for number, (t, _) in enumerate(answers)}
    return {"p": p, **parts, **{f"found{number}": f for number, (_, f) in enumerate(answers)}}


def _told(head: Head, record: Record, at_s: np.ndarray) -> np.ndarray:
    """Return the class the head gives each beat; none (a missed beat) where there are too few."""
    if len(at_s) < FEWEST_BEATS:
        return np.full(len(at_s), MISSED)
    return decide(class_probabilities(head, beat_inputs(record, at_s)), head.config["decision"])


def _in_cuts(head: Head, record: Record, at_s: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return truth and what the head says when it sees ten seconds at a time, as in a resting ECG; every fourth ten."""
    found = np.full(len(at_s), MISSED)
    asked = np.zeros(len(at_s), dtype=bool)
    for number in np.unique((at_s / CUT_S).astype(int))[::CUT_EVERY]:
        rows = (at_s / CUT_S).astype(int) == number
        first, last = (round(s * record.fs) for s in (number * CUT_S, (number + 1) * CUT_S))
        cut = record.with_(signal=record.signal[:, first:last])
        found[rows] = _told(head, cut, at_s[rows] - number * CUT_S)
        asked |= rows
    return truth[asked], found[asked]


def _end_to_end(model: Model, record: Record, at_s: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return truth and found of all beats, marked or found, matched within 150 ms; `MISSED` on the side without."""
    beats = analyze(record, model).beats
    ours_s, chosen = beats.at_s, beats.classes.astype(int)
    pairs = match_events(at_s, ours_s, TOLERANCE_S)
    missed = np.setdiff1d(np.arange(len(at_s)), pairs[:, 0])
    false = np.setdiff1d(np.arange(len(ours_s)), pairs[:, 1])
    return (
        np.concatenate([truth[pairs[:, 0]], truth[missed], np.full(len(false), MISSED)]),
        np.concatenate([chosen[pairs[:, 1]], np.full(len(missed), MISSED), chosen[false]]),
    )


# -- what was learned otherwise --------------------------------------------------------------------------------


def _alternatives(
    folder: Path, data: Path, fs_hz: float, test: Corpus, work: Path, progress: Callable[[str], None]
) -> tuple[dict[str, Found], list[str]]:
    """Return what the baselines, and our head without day-long annotations, say of the test beats; what was not run."""
    marks = {entry.record: read_beats(data / DATABASE / entry.record)[1] for entry in test.entries}
    train = Corpus(folder, "train", (DATABASE,))

    def kept(name: str, make: Callable[[], np.ndarray]) -> Found:
        version = f"-{N_RR_FEATURES}" if name not in BASELINES else ""
        path = work / f"{name.replace(' ', '_').replace('+', 'and').replace(',', '')}{version}.npy"
        if not path.is_file():
            progress(name)
            np.save(path, make())
        parts = np.split(np.load(path), np.cumsum([len(truth) for truth in marks.values()])[:-1])
        return {record: (truth, part) for (record, truth), part in zip(marks.items(), parts, strict=True)}

    def on_ds1_alone() -> np.ndarray:
        net, decision, _ = fit_and_calibrate(load_beats(train, data, fs_hz, progress), False, progress)
        return decide(probabilities(net, load_beats(test, data, fs_hz, progress, varied=False)), decision)

    makers: dict[str, Callable[[], np.ndarray]] = {
        name: lambda make=make: _baseline(make, _raw(train, data, fs_hz), _raw(test, data, fs_hz))
        for name, make in BASELINES.items()
    }
    makers["ours, DS1 alone"] = on_ds1_alone
    found = {}
    for name, make in makers.items():
        try:
            found[name] = kept(name, make)
        except KeyboardInterrupt:
            progress(f"stopped: {name} is missing, and the table says so")
    return found, [name for name in makers if name not in found]


def _raw(corpus: Corpus, data: Path, fs_hz: float) -> Beats:
    """Return the baselines' features of every beat."""
    parts = []
    for entry in corpus.entries:
        at_s, classes = read_beats(data / DATABASE / entry.record)
        parts.append((raw_features(corpus.record(entry, fs_hz), at_s), classes, np.full(len(classes), entry.record)))
    x, classes, records = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Beats(x[:, :0], x, classes, records, np.ones(len(classes), dtype=bool))


def _baseline(make: Any, told: Beats, asked: Beats) -> np.ndarray:
    """Fit a baseline; what decides is chosen by leaving patients out, with the same search as for ours."""
    p = np.zeros((len(told.classes), len(CLASSES)))
    for names in folds_of(told):
        rows = np.isin(told.records, names)
        p[rows] = fit_predict(make, told.shape[~rows], told.classes[~rows], told.shape[rows])
    decision = choose_decision(p, told.classes)
    return decide(fit_predict(make, told.shape, told.classes, asked.shape), decision)


def _embedding(
    model: Model, folder: Path, data: Path, fs_hz: float, work: Path, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Ask whether the model's embedding and surprise about a beat add anything: DS1, patients left out, same search."""
    kept = work / f"embedding-{model.checkpoint.sha256[:8]}.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text()))
    train = Corpus(folder, "train", (DATABASE,))
    beats = load_beats(train, data, fs_hz, progress, varied=False)
    more = []
    for entry in train.entries:
        progress(f"embedding {entry.record}")
        more.append(_about_beats(model, train.record(entry, fs_hz), read_beats(data / DATABASE / entry.record)[0]))
    x = np.concatenate(more)
    wide = Beats(beats.rr, np.concatenate([beats.shape, x], axis=1), beats.classes, beats.records, beats.whole)
    result: dict[str, Any] = {"rr_features": N_RR_FEATURES}
    for name, some in (("without", beats), ("with", wide)):
        p = left_out(some, False, progress, n_members=1)
        scored = class_scores(some.classes, decide(p, choose_decision(p, some.classes)))
        result[name] = {k: scored[k]["f1"] for k in ("S", "V")}
    kept.write_text(json.dumps(result))
    return result


N_COMPONENTS = 16


def _about_beats(model: Model, record: Record, at_s: np.ndarray) -> np.ndarray:
    """Return 16 fixed random mixes of the embedding of the beat's fragment, about the record's median, and surprise.

    Random projections, since principal components would have to be fitted on patients that are left out.
    """
    tokens = model.tokenize(record)
    embedding = model.embed(tokens)
    at = np.minimum((at_s / embedding.fragment_s).astype(int), tokens.valid.shape[1] - 1)

    def about(values: np.ndarray) -> np.ndarray:  # (L, P, D) -> (n, D)
        values = np.nan_to_num(values)
        return np.asarray((values - np.median(values, axis=1, keepdims=True))[:, at].mean(axis=0))

    embedded = about(embedding.per_fragment)
    mix = np.random.default_rng(0).normal(size=(embedded.shape[1], N_COMPONENTS)) / np.sqrt(embedded.shape[1])
    surprise = about(model.surprise(tokens)[..., None])
    return np.concatenate([embedded @ mix, surprise], axis=1).astype(np.float32)


# -- scores ----------------------------------------------------------------------------------------------------


def confusion(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return counts, true class by found class, (6, 6); the sixth row is false beats, the sixth column missed ones."""
    table = np.zeros((6, 6), dtype=np.int64)
    np.add.at(table, (truth % 6, found % 6), 1)  # -1 % 6 is 5
    return table


def f1(table: np.ndarray, k: int) -> float:
    """Return the F1 of one class; 0 where it is never found, NaN where it does not occur either."""
    total = table[k].sum() + table[:, k].sum()
    return float(2 * table[k, k] / total) if total else float("nan")


def _but_the_richest(records: Found) -> dict[str, Any]:
    """Return Se, PPV and F1 of S beats without the record that holds most of them: one patient must not be the score.

    Chosen by the marks alone.
    """
    richest = max(records, key=lambda name: int((records[name][0] == 1).sum()))
    table = np.sum([confusion(*pair) for name, pair in records.items() if name != richest], axis=0)
    patients = np.array([name for name in records if name != richest])
    tables = np.stack([confusion(*records[name]) for name in patients])
    low, high = patient_bootstrap(lambda rows: f1(tables[rows].sum(axis=0), 1), patients)
    return {
        "record": richest,
        "n": int(table[1].sum()),
        "se": float(table[1, 1] / max(1, table[1].sum())),
        "ppv": float(table[1, 1] / table[:, 1].sum()) if table[:, 1].sum() else None,
        "f1": {"value": f1(table, 1), "low": low, "high": high},
    }


def j_kappa(table: np.ndarray) -> float:
    """Return kappa / 2 + (Se + PPV of S and of V) / 8, of Mar 2011 (doi:10.1109/TBME.2011.2113395)."""
    n = table.sum()
    by_chance = (table.sum(axis=0) * table.sum(axis=1)).sum() / n**2
    kappa = (np.trace(table[:5, :5]) / n - by_chance) / (1 - by_chance)
    rates = [table[k, k] / max(1, total) for k in (1, 2) for total in (table[k].sum(), table[:, k].sum())]
    return float(kappa / 2 + sum(rates) / 8)


METRICS: dict[str, Callable[[np.ndarray], float]] = {
    "S F1": lambda t: f1(t, 1),
    "V F1": lambda t: f1(t, 2),
    "macro-F1": lambda t: float(np.nanmean([f1(t, k) for k in range(5)])),
    "macro-F1 of N S V": lambda t: float(np.nanmean([f1(t, k) for k in range(3)])),
    "j-kappa": j_kappa,
}


def scores(records: Found) -> dict[str, Any]:
    """Return scores of one method with intervals over patients, and the spread between records."""
    tables = np.stack([confusion(truth, found) for truth, found in records.values()])
    patients = np.array(list(records))
    total = tables.sum(axis=0)
    result: dict[str, Any] = {"confusion": total.tolist()}
    for name, metric in METRICS.items():
        low, high = patient_bootstrap(lambda rows, metric=metric: metric(tables[rows].sum(axis=0)), patients)
        result[name] = {"value": metric(total), "low": low, "high": high}
    for k, name in enumerate(CLASSES):
        result[name] = {
            "se": float(total[k, k] / max(1, total[k].sum())),
            "ppv": float(total[k, k] / total[:, k].sum()) if total[:, k].sum() else None,
            "f1": f1(total, k),
        }
    called_v = total[:, 2].sum() - total[3, 2] - total[4, 2]
    result["V"]["ppv_ec57"] = float(total[2, 2] / called_v) if called_v else None
    for k in (1, 2):  # a record with fewer than 20 such beats says little about them
        each = [f1(table, k) for table in tables if table[k].sum() >= 20]
        quartiles = np.percentile(each, [0, 25, 50, 75, 100]).tolist()
        result[f"per record {CLASSES[k]}"] = {"n_records": len(each), "quartiles_of_f1": quartiles}
    result["missed"], result["false"] = int(total[:5, 5].sum()), int(total[5, :5].sum())
    return result


def _ece(p: np.ndarray, truth: np.ndarray, n_bins: int = 15) -> dict[str, float]:
    """Return the expected calibration error of each class's probability: bins of equal width."""
    result = {}
    for k, name in enumerate(CLASSES):
        at = np.minimum((p[:, k] * n_bins).astype(int), n_bins - 1)
        gaps = [abs(p[at == b, k].sum() - (truth[at == b] == k).sum()) for b in range(n_bins)]
        result[name] = float(np.sum(gaps) / len(p))
    return result


# -- tables ----------------------------------------------------------------------------------------------------


def tables(numbers: dict[str, Any]) -> str:
    """Print the methods, our confusion, and our records."""
    counts = numbers["prevalence"]
    total = sum(counts.values())
    lines = [
        f"{numbers['split']}. Beats: "
        + ", ".join(f"{k} {n} ({100 * n / total:.2f} %)" for k, n in counts.items())
        + ".",
        "In brackets: 95 % interval over patients. On marked R peaks unless it says end to end.",
        "",
        "| method | S Se | PPV | F1 | V Se | PPV | PPV, EC57 | F1 | F F1 | Q F1 | macro-F1 | N S V | j-kappa |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, m in numbers["methods"].items():
        shown = [m["S"]["se"], m["S"]["ppv"], m["S F1"], m["V"]["se"], m["V"]["ppv"], m["V"]["ppv_ec57"], m["V F1"]]
        shown += [m["F"]["f1"], m["Q"]["f1"], m["macro-F1"], m["macro-F1 of N S V"], m["j-kappa"]]
        lines.append(f"| {name} | " + " | ".join(map(_shown, shown)) + " |")
    if numbers["not_run"]:
        lines += ["", f"Not run: {', '.join(numbers['not_run'])}."]
    ours, whole_way = numbers["methods"]["ours"], numbers["methods"]["ours, end to end"]
    lines += ["", "Our confusion (rows: truth):", "", "| | " + " | ".join(CLASSES) + " |", "|---|" + "---|" * 5]
    lines += [f"| {n} | " + " | ".join(map(str, ours["confusion"][k][:5])) + " |" for k, n in enumerate(CLASSES)]
    lines += ["", f"End to end: {whole_way['missed']} beats missed, {whole_way['false']} false; both count above.", ""]
    for k in ("S", "V"):
        spread = ours[f"per record {k}"]
        lines.append(
            f"{k} F1 of the {spread['n_records']} records with 20 such beats and more: least, quartiles, most "
            + ", ".join(f"{q:.3f}" for q in spread["quartiles_of_f1"])
            + "."
        )
    lines += _richest_lines(numbers)
    ece, added, head = numbers["calibration_ece"], numbers["embedding"], numbers["head"]
    lines += [
        "",
        "Calibration (ECE): " + ", ".join(f"{k} {v:.4f}" for k, v in ece.items()) + ".",
        f"Learned from {head['n_patients']} patients of DS1, and from {', '.join(head['trained_on'][1:])}.",
        "On DS1, patients left out, whole records, the head: "
        + ", ".join(f"{k} F1 {head['left_out_scores'][k]['f1']:.3f}" for k in ("S", "V"))
        + ".",
        "On DS1, patients left out, whole records, one network without day-long annotations: "
        + "; ".join(
            f"{name} embedding and surprise S F1 {added[name]['S']:.3f}, V F1 {added[name]['V']:.3f}"
            for name in ("without", "with")
        )
        + f" (with {added.get('rr_features', RR_FEATURES_OF_OLD)} RR features). They are not in the head.",
        "",
        *_record_lines(numbers),
        "",
        ANCHORS,
    ]
    return "\n".join(lines)


def _richest_lines(numbers: dict[str, Any]) -> list[str]:
    rest = numbers["but_the_richest"]
    named = next(iter(rest.values()))
    total = numbers["prevalence"]["S"]
    return [
        "",
        f"Record {named['record']} holds {total - named['n']} of the {total} S beats. Without it:",
        "",
        "| method | S Se | PPV | F1 |",
        "|---|---|---|---|",
        *(f"| {name} | " + " | ".join(_shown(m[k]) for k in ("se", "ppv", "f1")) + " |" for name, m in rest.items()),
        "",
        WHY_NOT,
    ]


def _record_lines(numbers: dict[str, Any]) -> list[str]:
    lines = [
        "| record | N | S | V | F | Q | S Se | S PPV | V Se | V PPV |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, told in numbers["per_record"].items():
        table = np.array(told["confusion"])
        rates = [float(table[k, k] / n) if n else None for k in (1, 2) for n in (table[k].sum(), table[:, k].sum())]
        lines.append(f"| {name} | " + " | ".join([*map(str, told["N S V F Q"]), *map(_shown, rates)]) + " |")
    return lines


def _shown(value: float | dict[str, float] | None) -> str:
    if isinstance(value, dict):
        return f"{value['value']:.3f} ({value['low']:.3f}-{value['high']:.3f})"
    return "-" if value is None else f"{value:.3f}"
