"""Row: corrupted-lead generation. Precordial leads that are not given, restored; each method on the same records.

Limb leads follow from two others by algebra and would inflate every mean: they are not scored.

Conventions
-----------
- Each lead of each record is scored over its whole length against the prepared signal (0.5 to 75 Hz, 300 Hz), after no
  shift and no scaling; a mean is over leads and records.
- PSNR: 20 log10(range / RMSE), range = peak to peak of that lead of that record.
- SSIM: Wang 2004 (doi:10.1109/TIP.2003.819861) along one dimension: Gaussian window of 1.5 samples, K1 .01, K2 .03,
  the same range.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baselines.mean_beat import mean_beat, restore_by_beat
from baselines.unet import fit_longer, fit_unet, restore_by_unet, training_blocks

from anyecg.engine import Model, load
from anyecg.heads import FOLDER
from anyecg.leads import PRECORDIAL_LEADS, STANDARD_LEADS
from anyecg.metrics import macro_auroc, patient_bootstrap, pearson_r
from anyecg.models.export import load_networks
from anyecg.models.unet import UNet
from anyecg.record import Record
from anyecg.signals import resample
from anyecg.tasks.restore import HEAD, by_algebra, restore, unusable_leads, with_leads, without
from anyecg.training.batches import mixed_in
from anyecg.training.datasets import (
    READERS_OF,
    SUPERCLASSES,
    TWELVE_LEAD_DATABASES,
    Corpus,
    Entry,
    load_noise,
    prepare_databases,
)
from anyecg.training.probe import (
    fit_probe,
    labelled_windows,
    layer_features,
    standard_lead_ids,
    superclass_labels,
)
from anyecg.training.restoration import GIVEN, fit_regression, twelve_lead
from anyecg.training.restoring import WITH_GUESS

MAIN, EXTERNAL = "ptb-xl", ("ludb", "cinc2021")
OURS, REGRESSION, MEAN_BEAT, UNET, CODES = "AnyECG", "linear regression", "mean beat", "U-Net", "AnyECG, codes drawn"
LONGER = "U-Net, as long as ours"
METRICS = ("r", "rmse", "mae", "psnr", "ssim")
N_BY_CODES = 40
"""Drawing 16 times takes long: the earlier way is measured on the first 40 records."""
N_NOISY = 100
N_DIAGNOSIS, DIAGNOSED = 150, ("I", "I, II, V2")
N_BEATS = 300
"""Training records the mean beat is taken from."""
NOISY_LEAD, NOISE, SNR_DB = "V3", "em", 0.0

Restorer = Callable[[Record, tuple[str, ...]], tuple[np.ndarray, np.ndarray | None]]
"""Given leads, names of the missing -> these in mV (n_missing, n_samples), and (2, n_missing, n_samples), the band."""


def run(model: Model, data: Path, work: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure; parts that are done are read from ``work``. What is cheap comes first."""
    torch.set_num_threads(1)
    folder = prepare_databases(data, data / "splits.csv", model.checkpoint.preparation, progress)
    fs_hz = model.checkpoint.grid.fs_hz
    train = [record for _, record in twelve_lead(Corpus(folder, "train", (MAIN,)), fs_hz)]
    tests = {}
    for database in (MAIN, *EXTERNAL):
        whole = twelve_lead(Corpus(folder, "test", (database,)), fs_hz)
        tests[database] = [(e, r) for e, r in whole if np.square(r.signal).mean(axis=1).min() >= 1e-6]
    fitted = Fitted(model, folder, train, work)
    scores: dict[tuple[str, str, str], Scores] = {}
    for method in (REGRESSION, OURS, MEAN_BEAT, CODES, UNET, LONGER):
        for database, name in product(tests, reversed(GIVEN)):
            if method == CODES and database != MAIN:
                continue
            test = tests[database][: N_BY_CODES if method == CODES else None]
            path = work / "scores" / _file_name(f"{database}_{name}_{_version(model, method)}.npz")
            found = _kept(path, partial(_scores, fitted, method, test, GIVEN[name]))
            scores[database, name, method] = found
            progress(
                f"{database}, given {name}, {method}: r {np.nanmean(found.r):.4f}, in band {found.inside.mean():.4f}"
            )
    measured = {}
    for database, test in tests.items():
        patients = [e.patient for e, _ in test]
        by_given = {}
        for name, given in GIVEN.items():
            of_given = {m: s for (d, g, m), s in scores.items() if (d, g) == (database, name)}
            by_given[name] = {"missing": missing_of(given), "methods": summarise(of_given, patients)}
        measured[database] = {"n_records": len(test), "n_patients": len(set(patients)), "given": by_given}
    return {
        "split": "test patients, clean 12-lead records; everything fitted on split train, chosen on split val",
        "n_regression": len(train),
        "databases": measured,
        "noise": noisy_lead(model, data, folder, work, progress),
        "diagnosis": diagnosis(fitted, work, progress),
    }


def _version(model: Model, method: str) -> str:
    """Return a method's name in names of files; ours says which head it was: another one is measured anew."""
    head = model.checkpoint.folder / FOLDER / f"{HEAD}.onnx"
    if method != OURS or not head.is_file():
        return method
    settings = sha256(head.with_suffix(".json").read_bytes())  # it holds the graph's hash
    return f"{method} {settings.hexdigest()[:10]}"


def _file_name(words: str) -> str:
    return words.replace(" ", "").replace(",", "_")


def missing_of(given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the precordial leads that are not given."""
    return tuple(lead for lead in PRECORDIAL_LEADS if lead not in given)


@dataclass
class Fitted:
    """What methods need, fitted on training records when it is first used."""

    model: Model
    folder: Path
    train: list[Record]
    work: Path

    @cached_property
    def network(self) -> UNet:
        """The U-Net."""
        return fit_unet(self.blocks, self.work / "unet")

    @cached_property
    def longer(self) -> UNet:
        """The U-Net, trained on for as many steps as our network."""
        return fit_longer(fit_unet(self.blocks, self.work / "unet"), self.blocks, self.work / "unet_longer")

    @cached_property
    def blocks(self) -> np.ndarray:
        """Return what both learn from, float16 (R, 12, N)."""
        return training_blocks(self.model, self.folder)

    @cached_property
    def beat(self) -> np.ndarray:
        """The mean beat."""
        return mean_beat(self.train[:N_BEATS])

    @cached_property
    def without_head(self) -> Model:
        """The model whose only way is to draw codes."""
        return load(_without_heads(self.model, self.work / "without_heads"), threads=1)

    def method(self, name: str, given: tuple[str, ...]) -> Restorer:
        """Return a method by its name."""
        if name == OURS:
            return _by_model(self.model)
        if name == CODES:
            return _by_model(self.without_head)
        if name in (UNET, LONGER):
            return _by_unet(self.network if name == UNET else self.longer)
        if name == MEAN_BEAT:
            return _by_mean_beat(self.beat)
        return _by_regression(fit_regression(self.train, given, missing_of(given)))


def _scores(fitted: Fitted, method: str, test: list[tuple[Entry, Record]], given: tuple[str, ...]) -> "Scores":
    return score(fitted.method(method, given), test, given, missing_of(given))


# -- methods -------------------------------------------------------------------------------------------------------


def _by_model(model: Model) -> Restorer:
    def found(given: Record, missing: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray | None]:
        done = restore(given, model, missing)
        rows = [done.record.leads.index(lead) for lead in missing]
        return done.record.signal[rows], np.stack([done.low_mv[rows], done.high_mv[rows]])

    return found


def _by_regression(weights: np.ndarray) -> Restorer:
    return lambda given, _missing: (weights @ given.signal, None)


def _by_unet(network: UNet) -> Restorer:
    def found(given: Record, missing: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray | None]:
        whole = by_algebra(with_leads(given, STANDARD_LEADS), STANDARD_LEADS)  # the same algebra as ours
        rows = [STANDARD_LEADS.index(lead) for lead in missing]
        return restore_by_unet(network, whole.signal)[rows], None

    return found


def _by_mean_beat(beat: np.ndarray) -> Restorer:
    def found(given: Record, missing: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray | None]:
        return restore_by_beat(beat, given)[[STANDARD_LEADS.index(lead) for lead in missing]], None

    return found


def _without_heads(model: Model, folder: Path) -> Path:
    """Copy the checkpoint without its heads: `restore` then generates by codes, as before there was a head."""
    if not (folder / "config.json").exists():
        shutil.copytree(model.checkpoint.folder, folder, ignore=shutil.ignore_patterns(FOLDER))
    return folder


# -- scores --------------------------------------------------------------------------------------------------------


@dataclass
class Scores:
    """Of N records and M missing leads, each (N, M): the metrics, and ``inside``, the share of samples in the band."""

    r: np.ndarray
    rmse: np.ndarray
    mae: np.ndarray
    psnr: np.ndarray
    ssim: np.ndarray
    inside: np.ndarray


def _kept(path: Path, measure: Callable[[], Scores]) -> Scores:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = measure()
        np.savez(path.with_suffix(".partial.npz"), **vars(found))
        path.with_suffix(".partial.npz").rename(path)
    with np.load(path) as arrays:
        return Scores(**arrays)


def score(
    found: Restorer, test: list[tuple[Entry, Record]], given: tuple[str, ...], missing: tuple[str, ...]
) -> Scores:
    """Restore the missing leads of each record and compare."""
    rows: dict[str, list[list[float]]] = {key: [] for key in (*METRICS, "inside")}
    for _, record in test:
        truth = record.pick(missing).signal.astype(np.float64)
        guess, band = found(record.pick(given), missing)
        error = guess - truth
        extent = np.ptp(truth, axis=1)
        rmse = np.sqrt(np.square(error).mean(axis=1))
        rows["r"].append([pearson_r(x, y) for x, y in zip(truth, guess, strict=True)])
        rows["rmse"].append(rmse.tolist())
        rows["mae"].append(np.abs(error).mean(axis=1).tolist())
        rows["psnr"].append((20 * np.log10(extent / rmse)).tolist())
        rows["ssim"].append([ssim(x, y, e) for x, y, e in zip(truth, guess, extent, strict=True)])
        inside = np.full(truth.shape, np.nan) if band is None else (band[0] <= truth) & (truth <= band[1])
        rows["inside"].append(inside.mean(axis=1).tolist())
    return Scores(**{key: np.array(value) for key, value in rows.items()})


def ssim(truth: np.ndarray, guess: np.ndarray, extent: float) -> float:
    """Return the structural similarity of two waveforms (n,) whose range is ``extent``."""
    from scipy.ndimage import gaussian_filter1d

    def blurred(x: np.ndarray) -> np.ndarray:
        return gaussian_filter1d(x, 1.5, truncate=3.5)

    mean_x, mean_y = blurred(truth), blurred(guess)
    var_x, var_y = blurred(truth**2) - mean_x**2, blurred(guess**2) - mean_y**2
    cov = blurred(truth * guess) - mean_x * mean_y
    c1, c2 = (0.01 * extent) ** 2, (0.03 * extent) ** 2
    similar = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return float(similar.mean())


def summarise(scores: dict[str, Scores], patients: list[str]) -> dict[str, Any]:
    """Return means, intervals, per lead r, and how far r lies above linear regression's and the U-Net's."""
    found: dict[str, Any] = {}
    for method, one in scores.items():
        of = np.array(patients[: len(one.r)])
        part: dict[str, Any] = {"n_records": len(of)}
        for key in METRICS:
            part[key] = _mean(getattr(one, key), of)
        part["median_r"] = round(float(np.nanmedian(one.r)), 4)
        part["r_of_leads"] = [round(float(x), 4) for x in np.nanmean(one.r, axis=0)]
        part["rmse_of_leads"] = [round(float(x), 4) for x in one.rmse.mean(axis=0)]
        part["inside"] = round(float(one.inside.mean()), 4) if np.isfinite(one.inside).all() else None
        for other, key in ((REGRESSION, "r_above_regression"), (UNET, "r_above_unet"), (LONGER, "r_above_longer")):
            part[key] = _mean(one.r - scores[other].r[: len(of)], of)
        found[method] = part
    return found


def _mean(values: np.ndarray, patients: np.ndarray) -> list[float]:
    """Return mean, low and high of values (n_records, n_leads) or (n_records,)."""
    low, high = patient_bootstrap(lambda rows: float(np.nanmean(values[rows])), patients)
    return [round(float(x), 4) for x in (np.nanmean(values), low, high)]


# -- noise instead of absence ----------------------------------------------------------------------------------------


def noisy_lead(model: Model, data: Path, folder: Path, work: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Drown one lead of raw test records in electrode motion; see whether it is found and what restoring brings."""
    path = work / _file_name(f"noise_{_version(model, OURS)}.npz")
    entries = [e for e, _ in twelve_lead(Corpus(folder, "test", (MAIN,)), model.checkpoint.grid.fs_hz)][:N_NOISY]
    if not path.exists():
        progress(f"{NOISY_LEAD} under {NOISE} noise at {SNR_DB:g} dB")
        rng = np.random.default_rng(0)
        noise = load_noise(data, "test", model.checkpoint.preparation)[NOISE]
        read = READERS_OF[MAIN](data / MAIN)
        rows = [_one_noisy(model, read(entry.record)[0], noise, rng) for entry in entries]
        np.savez(path, **{key: np.array([row[key] for row in rows]) for key in rows[0]})
    with np.load(path) as kept:
        values = dict(kept)
    patients = np.array([e.patient for e in entries])
    return {
        "n_records": len(entries),
        "n_patients": len(set(patients)),
        **{k: _mean(v, patients) for k, v in values.items()},
    }


def _one_noisy(model: Model, source: Record, noise: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    row = source.leads.index(NOISY_LEAD)
    truth = model.prepare(source).signal[row]
    at_source = resample(noise, model.checkpoint.grid.fs_hz, source.fs)
    start = int(rng.integers(at_source.shape[1] - source.n_samples + 1))
    stretch = at_source[rng.integers(len(noise)), start : start + source.n_samples]
    signal = source.signal.copy()
    signal[row] += mixed_in(signal[row], stretch, SNR_DB)
    noisy = source.with_(signal=signal)
    prepared = model.prepare(noisy)

    def r_of(bad: list[str]) -> float:
        done = restore(without(prepared, bad), model, bad).record if bad else prepared
        return pearson_r(truth, done.pick((NOISY_LEAD,)).signal[0])

    found = unusable_leads(noisy, prepared)
    others = [name for name in found if name != NOISY_LEAD]
    return {
        **{"found": float(NOISY_LEAD in found), "others_found": float(bool(others))},
        **{"r_noisy": r_of([]), "r_named": r_of([NOISY_LEAD]), "r_auto": r_of(found)},
    }


# -- does a diagnosis survive? -----------------------------------------------------------------------------------------


def diagnosis(fitted: Fitted, work: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Fit a linear probe of superclasses on real records; score it on real and on restored test records."""
    model, folder = fitted.model, fitted.folder
    tokenizer, encoder = load_networks(model.checkpoint.folder)
    grid, ids = model.checkpoint.grid, standard_lead_ids(tokenizer)

    def features_of(corpus: Any, name: str) -> np.ndarray:
        path = work / "features" / _file_name(f"{name}.npy")
        if not path.exists():
            progress(f"features: {name}")
            path.parent.mkdir(exist_ok=True)
            np.save(path, layer_features(encoder, labelled_windows(tokenizer, corpus, grid), ids)[-1])
        return np.asarray(np.load(path))

    features, labels = {}, {}
    for split in ("train", "val"):
        corpus = Corpus(folder, split, (MAIN,))
        features[split] = features_of(corpus, split)
        entries = [e for e in corpus.entries if e.labels and tuple(e.leads) == STANDARD_LEADS]
        labels[split] = superclass_labels(entries)
    test = Corpus(folder, "test", (MAIN,))
    test.entries = [e for e, _ in twelve_lead(test, grid.fs_hz) if e.labels][:N_DIAGNOSIS]
    of_test = {"real": features_of(test, "test real")}
    for name, method in product(DIAGNOSED, (REGRESSION, OURS, UNET, LONGER)):
        restored = _Restored(test, missing_of(GIVEN[name]), GIVEN[name], fitted.method(method, GIVEN[name]))
        of_test[f"{name} | {method}"] = features_of(restored, f"test {name} {_version(model, method)}")
    truth = superclass_labels(test.entries)
    joined = np.concatenate(list(of_test.values()))
    probe = fit_probe((features["train"], labels["train"]), (features["val"], labels["val"]), joined)
    patients = np.array([e.patient for e in test.entries])
    auroc = {}
    for key, scores in zip(of_test, np.split(probe.scores, len(of_test)), strict=True):
        low, high = patient_bootstrap(lambda rows, s=scores: macro_auroc(truth[rows], s[rows]), patients)  # type: ignore[misc]
        auroc[key] = [round(x, 4) for x in (macro_auroc(truth, scores), low, high)]
    return {
        "n_records": len(truth),
        "n_patients": len(set(patients)),
        "prevalence": dict(zip(SUPERCLASSES, truth.mean(axis=0).round(4).tolist(), strict=True)),
        "macro_auroc": auroc,
    }


class _Restored:
    """A corpus whose precordial leads are restored from the given ones.

    From lead I alone the other limb leads stay real: the question is what restored precordial leads are worth.
    """

    def __init__(self, corpus: Corpus, missing: tuple[str, ...], given: tuple[str, ...], found: Restorer) -> None:
        self.corpus, self.entries = corpus, corpus.entries
        self.given, self.missing, self.found = given, missing, found

    def record(self, entry: Entry, fs_hz: float) -> Record:
        """Return the record with its missing leads restored."""
        real = self.corpus.record(entry, fs_hz)
        guess, _ = self.found(real.pick(self.given), self.missing)
        signal = real.signal.copy()
        signal[[STANDARD_LEADS.index(lead) for lead in self.missing]] = guess
        return real.with_(signal=signal)


# -- tables ------------------------------------------------------------------------------------------------------------


def tables(numbers: dict[str, Any]) -> str:
    """Return the row's tables, Markdown."""
    parts = [
        f"Split: {numbers['split']}. Precordial leads that were not given, restored; limb leads are not scored. Means "
        "over leads and records; in brackets 95 % patient-bootstrap intervals. The databases are subsets. "
        f"Linear regression: {numbers['n_regression']} training records of {MAIN}, sample by sample. U-Net and our "
        "head: the training blocks of " + ", ".join(TWELVE_LEAD_DATABASES) + ". PSNR against each lead's own peak-to-"
        "peak range; SSIM along one dimension, Gaussian window of 1.5 samples. Our head's network begins from a U-Net "
        f"trained just as that baseline, and learns {WITH_GUESS.steps:,} steps more, with the regressed guess beside "
        f"the leads. '{LONGER}' learns those steps too, at the same rates, without the guess: what ours has above it "
        "is the guess, what it has above the U-Net is the longer training."
    ]
    for database, part in numbers["databases"].items():
        parts.append(f"## {database}: {part['n_records']} records of {part['n_patients']} patients")
        parts.append(_main_table(part["given"]))
        parts.append("r of each lead:\n\n" + _lead_table(part["given"]))
    parts += [_noise_table(numbers["noise"]), _diagnosis_table(numbers["diagnosis"])]
    parts.append(
        "Published, and what differs: one lead to twelve r .789 (MCMA) and three to twelve about .94 are means over "
        "*all* leads, on other and larger sets; AnyECG (arXiv 2411.17711) has PSNR 32.7, SSIM .874, MAE .0142 to "
        ".0296, its protocol is not known. "
        f"'{CODES}' is this model without its head, on the first {N_BY_CODES} records."
    )
    return "\n\n".join(parts)


def _main_table(by_given: dict[str, Any]) -> str:
    names = ["given", "by", "r", "r above regression", "r above U-Net", "above the longer one"]
    names += ["RMSE, mV", "MAE, mV", "PSNR, dB", "SSIM"]
    lines = ["| " + " | ".join([*names, "in 5-95 % band, %"]) + " |", "|---" * (len(names) + 1) + "|"]
    for given, part in by_given.items():
        for method, m in part["methods"].items():
            inside = "" if m["inside"] is None else f"{100 * m['inside']:.1f}"
            above = "" if method == REGRESSION else _interval(m["r_above_regression"], "+.3f")
            of_unet = "" if method == UNET else _interval(m["r_above_unet"], "+.3f")
            of_longer = "" if method == LONGER else _interval(m["r_above_longer"], "+.3f")
            cells = [given, method, _interval(m["r"]), above, of_unet, of_longer, _interval(m["rmse"])]
            cells += [f"{m['mae'][0]:.4f}", f"{m['psnr'][0]:.1f}", f"{m['ssim'][0]:.3f}", inside]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _lead_table(by_given: dict[str, Any]) -> str:
    lines = ["| given | by | " + " | ".join(PRECORDIAL_LEADS) + " |", "|---|---|" + "---|" * len(PRECORDIAL_LEADS)]
    for given, part in by_given.items():
        for method, m in part["methods"].items():
            of_lead = dict(zip(part["missing"], m["r_of_leads"], strict=True))
            cells = [f"{of_lead[lead]:.3f}" if lead in of_lead else "given" for lead in PRECORDIAL_LEADS]
            lines.append(f"| {given} | {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _noise_table(n: dict[str, Any]) -> str:
    lines = [
        f"## Noise instead of absence\n\n{NOISY_LEAD} of {n['n_records']} {MAIN} test records ({n['n_patients']} "
        f"patients) under electrode motion (nstdb em, test stretch) at {SNR_DB:g} dB, r against the clean lead.\n",
        "| what is done | r |\n|---|---|",
        f"| nothing | {_interval(n['r_noisy'])} |",
        f"| the lead is named, then restored | {_interval(n['r_named'])} |",
        f"| `--auto`: what quality finds unusable is restored | {_interval(n['r_auto'])} |",
        f"\nFound unusable: {NOISY_LEAD} in {_interval(n['found'])}, any other lead in {_interval(n['others_found'])}.",
    ]
    return "\n".join(lines)


def _diagnosis_table(d: dict[str, Any]) -> str:
    prevalence = ", ".join(f"{name} {100 * share:.0f} %" for name, share in d["prevalence"].items())
    lines = [
        f"## Does a diagnosis survive?\n\nA linear probe of the frozen encoder, fitted on real training records of "
        f"{MAIN}, scored on {d['n_records']} test records ({d['n_patients']} patients) whose precordial leads were "
        f"restored (limb leads real). Superclasses: {prevalence}.\n",
        "| precordial leads | by | macro AUROC |\n|---|---|---|",
    ]
    for key, value in d["macro_auroc"].items():
        given, _, method = key.partition(" | ")
        lines.append(f"| {'real' if given == 'real' else 'from ' + given} | {method} | {_interval(value)} |")
    return "\n".join(lines)


def _interval(value: list[float], form: str = ".3f") -> str:
    return f"{value[0]:{form}} ({value[1]:{form}} to {value[2]:{form}})"
