"""Row ``paroxysmal``: questions about half an hour, from the embeddings of its windows.

Does this person have paroxysmal atrial fibrillation; and does an episode follow this recording at once? A second level
over the windows against votes of single windows, their mean, and boosted RR intervals. Each method's options are chosen
by cross-validation that leaves out patients of train and val; the method chosen is then fitted on split train alone.
"""

import json
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from baselines.half_hours import (
    BOOSTING_GRID,
    LINEAR_GRID,
    boosted_rr,
    majority,
    pooled_linear,
    voting_mean,
    voting_share,
)

from anyecg.engine import Model
from anyecg.metrics import auroc, patient_bootstrap
from anyecg.training.datasets import prepare_databases
from anyecg.training.paroxysmal import (
    INPUTS,
    POOLINGS,
    SEEDS,
    Recordings,
    Settings,
    before_episode,
    cross_validated,
    fit_second_level,
    load_recordings,
    of_patient_with_af,
    together,
)

SECOND_LEVEL, VOTING, BOOSTING = "second level", "voting, mean", "RR boosting"
SECOND_LEVEL_GRID = tuple(product(INPUTS, POOLINGS, (4, 16)))
"""What a window shows; how windows are read; hidden units."""
SEARCH_SEEDS = 1
FOLDS_SEED = 0
ROUNDS = 1000

QUESTIONS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "patient": ("Does this person have paroxysmal atrial fibrillation?", of_patient_with_af),
    "before": ("Of a person who has: does an episode follow at once?", before_episode),
}


def second_level(recordings: Recordings, labels: np.ndarray, option: tuple[str, str, int], n_seeds: int = SEEDS) -> Any:
    """Train the networks of `anyecg.training.paroxysmal`."""
    inputs, pooling, n_hidden = option
    settings = Settings(inputs=inputs, pooling=pooling, n_hidden=n_hidden)
    return fit_second_level(recordings, labels, settings, n_seeds)


METHODS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "majority": (majority, (None,)),
    VOTING: (voting_mean, LINEAR_GRID),
    "voting, share of windows": (voting_share, LINEAR_GRID),
    "mean of windows, linear": (pooled_linear, LINEAR_GRID),
    BOOSTING: (boosted_rr, BOOSTING_GRID),
    SECOND_LEVEL: (second_level, SECOND_LEVEL_GRID),
}


def run(model: Model, data: Path, work: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure every method on both questions; a method that was measured before is not again."""
    folder = prepare_databases(data, data / "splits.csv", model.checkpoint.preparation)
    made_by = f"{model.checkpoint.name}-{model.checkpoint.config['files']['encoder.onnx'][:8]}"
    kept = work / f"windows-{made_by}"
    kept.mkdir(parents=True, exist_ok=True)
    train, val, test = (load_recordings(model, folder, split, kept) for split in ("train", "val", "test"))
    progress(f"paroxysmal: {len(train.names)} train, {len(val.names)} val, {len(test.names)} test recordings")
    numbers: dict[str, Any] = {"questions": {}}
    for key, (_, label) in QUESTIONS.items():
        asked = [_asked(part, label) for part in (train, together(train, val), test)]
        methods = {}
        for name, (fit, grid) in METHODS.items():
            file = work / f"{key}-{name.replace(', ', '-').replace(' ', '-')}-{made_by}.json"
            if not file.is_file():
                file.write_text(json.dumps(_scores(fit, grid, *asked)))
                progress(f"paroxysmal: {key}, {name} done")
            methods[name] = json.loads(file.read_text())
        numbers["questions"][key] = _measured(methods, asked[1], asked[2])
    return numbers


Asked = tuple[Recordings, np.ndarray]


def _asked(recordings: Recordings, label: Callable[[np.ndarray], np.ndarray]) -> Asked:
    """Return those that the question is asked of, and their labels."""
    labels = label(recordings.names)
    return recordings.some(np.flatnonzero(labels >= 0)), labels[labels >= 0]


def _scores(fit: Callable[..., Any], grid: tuple[Any, ...], train: Asked, developed: Asked, test: Asked) -> dict:
    """Choose an option by cross-validation in train and val; score them all left out, and test after a fit on train."""
    search = partial(fit, n_seeds=SEARCH_SEEDS) if fit is second_level else fit
    tried = []
    for option in grid:
        scores = cross_validated(*developed, lambda x, y, option=option: search(x, y, option), FOLDS_SEED)
        tried.append(auroc(developed[1] == 1, scores))
    option = grid[int(np.argmax(tried))]
    left_out = cross_validated(*developed, lambda x, y: fit(x, y, option), FOLDS_SEED)
    return {
        "option": option,
        "tried": tried,
        "left_out": left_out.tolist(),
        "test": fit(*train, option)(test[0]).tolist(),
    }


def _measured(methods: dict[str, Any], developed: Asked, test: Asked) -> dict[str, Any]:
    """Return the numbers of one question, with what each method said of each recording."""
    measured: dict[str, Any] = {"sets": {}, "methods": {}}
    for title, (recordings, labels), key in (("test", test, "test"), ("left_out", developed, "left_out")):
        measured["sets"][title] = {
            "n_records": len(labels),
            "n_patients": len(np.unique(recordings.patients)),
            "prevalence": float(labels.mean()),
            "records": recordings.names.tolist(),
        }
        votes = np.array(methods[VOTING][key])
        for name, said in methods.items():
            own = measured["methods"].setdefault(name, {"option": said["option"], "tried": said["tried"]})
            own[title] = _metrics(labels == 1, np.array(said[key]), votes, recordings.patients)
    return measured


def _metrics(positive: np.ndarray, scores: np.ndarray, votes: np.ndarray, patients: np.ndarray) -> dict[str, Any]:
    """Return AUROC, accuracy at one half, the AUROC's lead over voting, and pairs put right where a person has both."""
    inverse = np.unique(patients, return_inverse=True)[1]
    pairs = [np.flatnonzero(inverse == k) for k in range(inverse.max() + 1)]
    mixed = [rows for rows in pairs if positive[rows].any() and not positive[rows].all()]
    each = {
        "auroc": lambda rows: auroc(positive[rows], scores[rows]),
        "accuracy": lambda rows: float(((scores[rows] >= 0.5) == positive[rows]).mean()),
        "over_voting": lambda rows: auroc(positive[rows], scores[rows]) - auroc(positive[rows], votes[rows]),
    }
    found: dict[str, Any] = {
        name: {"value": metric(np.arange(len(scores))), "interval": patient_bootstrap(metric, patients, ROUNDS)}
        for name, metric in each.items()
    }
    found["pairs_right"] = float(sum(auroc(positive[rows], scores[rows]) for rows in mixed))
    found["n_pairs"] = len(mixed)
    found["scores"] = scores.tolist()
    return found


def tables(numbers: dict[str, Any]) -> str:
    """Return the row's tables as Markdown."""
    parts = [_INTRODUCTION]
    for key, (question, _) in QUESTIONS.items():
        asked = numbers["questions"][key]
        parts.append(f"## {question}")
        for title, words in _SETS.items():
            about = asked["sets"][title]
            parts += [
                f"### {words}",
                f"{about['n_records']} recordings of {about['n_patients']} patients, "
                f"{100 * about['prevalence']:.0f} % positive.",
                _table(asked["methods"], title),
            ]
        parts += [_chosen(asked["methods"]), _verdict(asked["methods"])]
    return "\n\n".join([*parts, _ANCHORS])


_SETS = {"test": "Split test, fitted on split train", "left_out": "Patients of train and val, left out in turn"}
_INTRODUCTION = (
    "Recordings of afpdb (a subset): 30 min, two leads; windows of 30 s, each the mean of the frozen model's "
    "embeddings over the window and the leads, and twelve numbers of its RR intervals (beats from our own detector). "
    f"The second level is {SEEDS} small networks over the sequence of windows, averaged. Threshold 0.5 with every "
    "method. Options of every method (what windows show, penalty, size) are chosen by AUROC on patients of train and "
    "val left out in turn, one of each kind at a time; so those figures are flattered by the choice, the more the more "
    "options were tried. 95 % intervals: patients drawn with replacement; **with so few test patients they say "
    "little: a method that is right about all of them has an interval of no width.** The encoder's pre-training saw "
    "the signals of train, never a label."
)
_ANCHORS = (
    "Published anchors. The 2001 challenge (Moody 2001, Computers in Cardiology 28:113-116) asked the first question "
    "of one recording each of 50 hidden patients, the second of pairs; its learning set has 50 patients, of whom "
    "20 are here. Hickey 2004 (Annals of Biomedical Engineering 32:677-687; RR spectra and premature beats, linear "
    "discriminant, trained on 100 patients of this database) has sensitivity .430, specificity .993 and accuracy .805 "
    "by half hour on 1,370 half hours of 50 other patients. Neither is comparable with so few patients."
)


def _table(methods: dict[str, Any], title: str) -> str:
    paired = next(iter(methods.values()))[title]["n_pairs"] > 0
    lines = ["| method | AUROC | accuracy | AUROC over voting |" + (" pairs put right |" if paired else "")]
    lines.append("|---" * (5 if paired else 4) + "|")
    for name, method in methods.items():
        found = method[title]
        cells = [_cell(found["auroc"]), _cell(found["accuracy"])]
        cells.append("" if name == VOTING else _cell(found["over_voting"], "+"))
        if paired:
            cells.append(f"{found['pairs_right']:g} of {found['n_pairs']}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(measured: dict[str, Any], sign: str = "") -> str:
    low, high = measured["interval"]
    between = " to " if sign else "-"
    return f"{measured['value']:{sign}.3f} ({low:{sign}.3f}{between}{high:{sign}.3f})"


def _chosen(methods: dict[str, Any]) -> str:
    lines = ["Options tried, and AUROC of the patients left out, least, median and best:", ""]
    for name, method in methods.items():
        if len(method["tried"]) > 1:
            least, median, best = np.quantile(method["tried"], (0, 0.5, 1))
            option = ", ".join(map(str, method["option"]))
            lines.append(
                f"- {name}: {len(method['tried'])} tried, {least:.3f}, {median:.3f}, {best:.3f}; chosen: {option}"
            )
    return "\n".join(lines)


def _verdict(methods: dict[str, Any]) -> str:
    """Say whether the second level is better than voting, and than RR boosting, by figures alone."""
    parts = []
    for title, words in (("test", "split test"), ("left_out", "the patients left out")):
        own = methods[SECOND_LEVEL][title]
        low, high = own["over_voting"]["interval"]
        beyond = "more" if low > 0 or high < 0 else "no more"
        parts.append(
            f"On {words} the second level's AUROC is {own['auroc']['value']:.3f}, voting's "
            f"{methods[VOTING][title]['auroc']['value']:.3f} (a difference of {beyond} than the noise), RR boosting's "
            f"{methods[BOOSTING][title]['auroc']['value']:.3f}."
        )
    return " ".join(parts)
