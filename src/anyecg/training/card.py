"""Measured numbers -> tables, and the model card. A number is in the card only if `anyecg evaluate` printed it."""

import json
from pathlib import Path
from typing import Any

from anyecg.training.datasets import CITATIONS, NOISE_CITATION, SUPERCLASSES

METRICS = "metrics.json"


def tables(what: str, measured: dict[str, Any]) -> str:
    """Return the Markdown tables of one evaluation."""
    return TABLES[what](measured)


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


def _robustness_tables(measured: dict[str, Any]) -> str:
    noise = [
        [
            *(kind, snr, f"{row['snr_gain_db']:.1f}", f"{row['r']:.3f}", _percent(row["codes_kept"])),
            *_wavelet_cells(row),
        ]
        for kind, by_snr in measured["noise"].items()
        for snr, row in by_snr.items()
    ]
    changed = [
        [f"{label} {name}".strip(), _percent(row.get("codes_kept", [])), f"{row['r']:.3f}" if "r" in row else ""]
        for key, label in (("rates", "Hz:"), ("gains", "gain, times:"), ("subsets", "only"), ("polarity", ""))
        for name, row in measured[key].items()
    ]
    return "\n\n".join(
        [
            f"Split: {measured['split']}: {measured['n_records']} records of {measured['n_patients']} patients. "
            "Codes kept: share of codes equal to those of the record as it is, level 1 / 2 / ...",
            "Real noise mixed in (bw baseline wander, em electrode motion, ma muscle), decoded against *clean*; "
            "`wavelet`: db6 soft thresholding of the same noisy signal, and the codes of that. Medians over leads:",
            _table(
                [
                    *("noise", "SNR in, dB", "SNR gain, dB", "r to clean", "codes kept, %"),
                    *("wavelet gain, dB", "wavelet r", "wavelet codes kept, %"),
                ],
                noise,
            ),
            "Recorded otherwise. r: decoded against the record, median over leads. A waveform upside down or under "
            "another lead's name is compared with the codes of the same waveform as it was:",
            _table(["the same record", "codes kept, %", "r"], changed),
        ]
    )


def _wavelet_cells(row: dict[str, Any]) -> list[str]:
    """Return the baseline's cells; numbers of version 2026.11.1 have the gain alone."""
    r = f"{row['wavelet_r']:.3f}" if "wavelet_r" in row else ""
    return [f"{row['wavelet_snr_gain_db']:.1f}", r, _percent(row.get("wavelet_codes_kept", []))]


def _percent(shares: list[float]) -> str:
    return " / ".join(f"{100 * share:.0f}" for share in shares)


def _meaning_tables(measured: dict[str, Any]) -> str:
    told, labels = [], []
    for task, part in measured["tasks"].items():
        for name, c in part["clusters"].items():
            told.append(
                [
                    *(task, name, f"{c['nmi']:.3f} / {c['nmi_shuffled']:.3f}", _with_interval(c["ami"], c["interval"])),
                    f"{100 * c['told']:.1f} / {100 * c['told_shuffled']:.1f}",
                    *(_with_interval(c["read_right"], c["read_right_interval"], ".2f"), f"{part['chance_read']:.2f}"),
                    _with_interval(part["gain"]["ami"], part["gain"]["interval"]) if name == "codes" else "",
                ]
            )
        shares = ", ".join(f"{label} {100 * share:.1f} % ({n:,})" for label, (share, n) in part["labels"].items())
        counts = [part["database"], part["n_records"], part["n_patients"], f"{part['n_fragments']:,}"]
        labels.append([task, *counts, shares, part["rule"]])
    return "\n\n".join(
        [
            f"Split: {measured['split']}. Level-1 codes (of {measured['codebook_size']}) against k-means on the raw "
            f"{measured['fragment_s']:g} s fragments, scaled alike: {measured['n_clusters']} clusters, fitted on "
            f"{measured['n_fitted']:,} training fragments. A code has heard the seconds around its fragment, k-means "
            "has not.",
            "NMI: normalised mutual information with the label; shuffled: the same after clusters changed places in "
            "time within each lead (rhythm: after records exchanged labels), which leaves chance and what the record "
            "alone tells; AMI: what chance tells taken off (95 %: jackknife over patients); told: share of the "
            "label's entropy; read right: mean recall when each cluster is read as the label it is most enriched for "
            "in train; gain: AMI less that of k-means.",
            _table(
                [
                    *("label", "clusters", "NMI / shuffled", "AMI (95 %)", "told, % / shuffled", "read right (95 %)"),
                    *("chance", "gain (95 %)"),
                ],
                told,
            ),
            _table(["label", "database", "records", "patients", "fragments", "prevalence", "rule"], labels),
        ]
    )


def _restoration_tables(measured: dict[str, Any]) -> str:
    rows = []
    for given, part in measured["given"].items():
        for name, r, rmse in (("model", "r", "rmse"), ("linear regression", "linear_r", "linear_rmse")):
            rows.append([given, part["n"], name, _with_interval(part[r]["mean"], part[r]["interval"])])
            rows[-1] += [f"{part[r]['median']:.3f}", f"{part[rmse]:.3f}"]
            rows[-1].append(f"{100 * part['inside']:.0f}" if name == "model" else "")
    return "\n\n".join(
        [
            f"Split: {measured['split']}: {measured['n_records']} records of {measured['n_patients']} patients. "
            "Precordial leads that were not given, restored, against the prepared signal.",
            _table(
                ["given", "leads restored", "by", "r, mean (95 %)", "r, median", "RMSE, mV", "inside 5-95 % band, %"],
                rows,
            ),
        ]
    )


def _with_interval(value: float, interval: list[float], form: str = ".3f") -> str:
    return f"{value:{form}} ({interval[0]:{form}} to {interval[1]:{form}})"


def _heads_tables(measured: dict[str, Any]) -> str:
    parts = [f"Split: {measured['split']}. These are subsets of the databases."]
    for name, head in measured["heads"].items():
        parts.append(
            f"### Head {name}\n\n{head['n_records']} records of {head['n_patients']} patients "
            f"({', '.join(head['databases'])}). A macro mean counts labels with five positives and negatives or more."
        )
        summary = []
        for leads, part in head["by_leads"].items():
            row = [leads, *(_value(part.get(key)) for key in ("macro_auroc", "superclass_auroc", "mean_f1"))]
            summary.append([*row, part["calibration_error"], part.get("majority_mean_f1", "")])
        columns = ["leads", "macro AUROC (95 %)", "superclasses", "mean F1 of rhythms", "ECE", "majority's mean F1"]
        parts.append(_table(columns, summary))
        first = next(iter(head["by_leads"].values()))
        rows = [
            [
                *(label["code"], label["name"], f"{label['positive']} / {label['n']}", label["auroc"]),
                *(label["average_precision"], label["f1"], label["calibration_error"], _by_chance(label)),
            ]
            for label in first["labels"]
        ]
        columns = ["label", "", "positive / known", "AUROC", "average precision", "F1 at threshold", "ECE"]
        columns.append("ECE of right answers, mean / 95 %")
        parts.append(_table(columns, rows))
        groups = [[group, part["n"], _value(part)] for group, part in head["subgroups"].items()]
        if groups:
            parts.append(_table(["subgroup", "records", "macro AUROC (95 %)"], groups))
    return "\n\n".join(parts)


def _by_chance(label: dict[str, Any]) -> str:
    """Return the calibration error that right probabilities show with so few records, mean / 95 % quantile."""
    found = label.get("calibration_error_by_chance")
    return "" if found is None else f"{found[0]:.3f} / {found[1]:.3f}"


def _value(found: dict[str, Any] | None) -> str:
    return "" if found is None else _with_interval(found["value"], found["interval"])


TABLES = {
    "tokenizer": _tokenizer_tables,
    "pretraining": _pretraining_tables,
    "robustness": _robustness_tables,
    "meaning": _meaning_tables,
    "restoration": _restoration_tables,
    "heads": _heads_tables,
}
"""What `anyecg evaluate` measures, and the function that prints it."""


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
        "Research on ECGs: rhythm codes, embeddings, anomaly scores, findings, beats, episodes, missing leads. Any "
        "leads, any rate. Not "
        "validated for any clinical decision, nor for children, paced rhythms or exercise.",
        "## Training data",
        "Train split only, by patient; subsets of:",
        "\n".join(f"- {CITATIONS.get(d, d)}" for d in config["trained_on"]) + f"\n- {NOISE_CITATION}",
        f"Splits file: SHA-256 `{config['splits_sha256']}`. MIT-BIH: DS1 (without record 201, whose "
        "patient is also in DS2) for training, DS2 for testing. No test patient was seen in any stage; layer and "
        "probe strength were chosen on val.",
        f"Licence of the weights: {config['licence']}.",
    ]
    for what in TABLES:
        if what in metrics:
            parts += [
                f"## Measured: {what}",
                f"Printed by `anyecg evaluate {what} {name}`.",
                tables(what, metrics[what]),
            ]
    parts += [
        "## Limits",
        "Trained on subsets of the databases. The heads for beats, episodes and missing leads, the anomaly score, and "
        "every head beside its baselines are measured by `python benchmarks/quality`; docs/benchmarks says where they "
        "win and where they lose. Each head's JSON names what it was fitted to. The anomaly percentile is relative to "
        "normal adult resting ECGs of one "
        "collection (12 leads, or single leads of them) and, for unnamed single leads, to hand-held recordings. Codes "
        "depend on where 10 s blocks begin on the recording's clock.",
    ]
    path = folder / "card.md"
    path.write_text("\n\n".join(parts) + "\n")
    return path
