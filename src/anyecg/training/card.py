"""Measured numbers -> tables, and the model card. A number is in the card only if `anyecg evaluate` printed it."""

import json
from pathlib import Path
from typing import Any

from anyecg.training.datasets import CITATIONS, NOISE_CITATION, SUPERCLASSES

METRICS = "metrics.json"


def tables(what: str, measured: dict[str, Any]) -> str:
    """Return the Markdown tables of one evaluation."""
    return {"tokenizer": _tokenizer_tables, "pretraining": _pretraining_tables}[what](measured)


def keep(folder: Path, what: str, measured: dict[str, Any]) -> None:
    """Write an evaluation into a checkpoint folder, and its card anew."""
    path = folder / METRICS
    metrics = json.loads(path.read_text()) if path.exists() else {}
    metrics[what] = measured
    path.write_text(json.dumps(metrics, indent=1) + "\n")
    write_card(folder)


def _table(header: list[str], rows: list[list[Any]]) -> str:
    return "\n".join(_line(cells) for cells in (header, ["---"] * len(header), *rows))


def _line(cells: list[Any]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _tokenizer_tables(measured: dict[str, Any]) -> str:
    waveform, beats, codes = [], [], []
    for name, part in measured["databases"].items():
        for group, w in part["waveform"].items():
            low, high = w["r_median_interval"]
            waveform.append(
                [
                    *(name, part["n_records"], part["n_patients"], group),
                    *(f"{w['r_median']:.3f} ({low:.3f}-{high:.3f})", f"{w['r_mean']:.3f}", w["prd_median"]),
                    *(f"{w['wavelet_r_median']:.3f}", w["wavelet_prd_median"], part["bits_per_second"]),
                ]
            )
        b = part["beats"]
        beats.append(
            [
                name,
                b["r_peak_error_ms"],
                b["qrs_amplitude_error_percent"],
                b["st_level_error_mv"],
                b["heart_rate_error_bpm"],
            ]
        )
        codes.append([name, *(f"{100 * c['usage']:.1f} % / {c['perplexity']:.0f}" for c in part["codes"])])
    n_levels = len(codes[0]) - 1
    return "\n\n".join(
        [
            f"Split: {measured['split']}. Reference: the prepared signal (0.5-75 Hz, 300 Hz). `wavelet`: the largest "
            "db6 coefficients that the same bits per second pay for. These are subsets of the databases.",
            _table(
                [
                    *("database", "records", "patients", "leads", "r, median (95 %)", "r, mean", "PRD %, median"),
                    *("wavelet r", "wavelet PRD %", "bits/s per lead"),
                ],
                waveform,
            ),
            "Medians of absolute errors, decoded against measured, in the lead beats were found in:",
            _table(["database", "R peak, ms", "QRS amplitude, %", "ST level, mV", "heart rate, 1/min"], beats),
            "Codes in use / perplexity, by level:",
            _table(["database", *(f"level {k + 1}" for k in range(n_levels))], codes),
        ]
    )


def _pretraining_tables(measured: dict[str, Any]) -> str:
    masked = measured["masked_codes"]
    n_levels = len(masked["accuracy"]["encoder"])
    guesses = [[name, *(f"{a:.3f}" for a in accuracy)] for name, accuracy in masked["accuracy"].items()]
    probes = []
    for name, probe in measured["probes"].items():
        classes, sex = probe["superclasses"], probe["sex"]
        probes.append(
            [name, f"{classes['macro_auroc']:.3f} ({classes['interval'][0]:.3f}-{classes['interval'][1]:.3f})"]
            + [f"{a:.3f}" for a in classes["each"]]
            + [f"{sex['macro_auroc']:.3f} ({sex['interval'][0]:.3f}-{sex['interval'][1]:.3f})"]
        )
    prevalence = ["prevalence", "", *(f"{p:.3f}" for p in measured["prevalence"].values()), f"{measured['male']:.3f}"]
    majority = ["majority (constant score)", "0.500", *["0.500"] * (len(SUPERCLASSES) + 1)]
    return "\n\n".join(
        [
            f"Split: {measured['split']}: {measured['n_test']} records of {measured['n_test_patients']} patients "
            f"({measured['n_train']} training records). These are subsets of the database.",
            f"Hidden codes guessed, {100 * masked['hidden_share']:.0f} % hidden by the mixture of masks, "
            f"{masked['n_hidden']} hidden fragments:",
            _table(["", *(f"level {k + 1}" for k in range(n_levels))], guesses),
            f"Linear probe, each lead's mean over time, encoder layer {measured['embedding_layer']} (chosen on val):",
            _table(
                ["features", "superclasses, macro AUROC (95 %)", *SUPERCLASSES, "sex, AUROC"],
                [*probes, prevalence, majority],
            ),
        ]
    )


def write_card(folder: Path) -> Path:
    """Write card.md from config.json and, where it is there, metrics.json."""
    config = json.loads((folder / "config.json").read_text())
    metrics_path = folder / METRICS
    metrics = json.loads(metrics_path.read_text()) if metrics_path.exists() else {}
    sizes = config["model"]["tokenizer"]
    fragment_s = sizes["fragment_samples"] / sizes["fs_hz"]
    name = config["name"]
    parts = [
        f"# anyecg-{name} {config['version']}",
        "Research software. Not a medical device: not for diagnosis or treatment.",
        f"A tokenizer ({fragment_s:g} s fragments, {sizes['n_levels']} residual levels of {sizes['codebook_size']} "
        f"codes) and a masked-code encoder with cardio-sparse attention, {config['parameters']:,} parameters in all. "
        "An independent implementation of the method of AnyECG (arXiv 2411.17711).",
        "## Intended use",
        "Research on ECG representation: rhythm codes, embeddings, first anomaly scores. Any leads, any rate. Not "
        "validated for any clinical decision, nor for children, paced rhythms or exercise.",
        "## Training data",
        "Train split only, by patient; subsets of:",
        "\n".join(f"- {CITATIONS.get(d, d)}" for d in config["trained_on"]) + f"\n- {NOISE_CITATION}",
        f"Splits file: SHA-256 `{config['splits_sha256']}`. MIT-BIH: DS1 (without record 201, whose "
        "patient is also in DS2) for training, DS2 for testing. No test patient was seen in any stage; layer and "
        "probe strength were chosen on val.",
        f"Licence of the weights: {config['licence']}.",
    ]
    for what, title in (("tokenizer", "## Measured: tokenizer"), ("pretraining", "## Measured: pre-training")):
        if what in metrics:
            parts += [title, f"Printed by `anyecg evaluate {what} {name}`.", tables(what, metrics[what])]
    parts += [
        "## Limits",
        "Trained on subsets of the databases. The anomaly percentile is relative to normal adult resting ECGs of one "
        "collection (12 leads, or single leads of them) and, for unnamed single leads, to hand-held recordings. Codes "
        "depend on where 10 s blocks begin on the recording's clock.",
    ]
    path = folder / "card.md"
    path.write_text("\n\n".join(parts) + "\n")
    return path
