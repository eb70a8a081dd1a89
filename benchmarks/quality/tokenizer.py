"""Row ``tokenizer``: designs of the codes against each other, at one training budget and, in groups, one bit rate.

Every trial is nano's tokenizer with other codes: the same trunk, the same windows in the same order, the same number of
steps. So the table ranks designs; the model that ships, trained ten times as long, has a line of its own, and so has it
with more levels added after the fact. Beside them wavelet coding and a plain autoencoder at the same bits a second.
"""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from baselines.autoencoder import ONLY_WAVEFORM, autoencoder, latent_options
from levels import snr_gain_db, training_vectors, with_more_levels
from trials import STEPS, WINDOWS, Trial, count_numbers, sizes_of, trained
from waveforms import DATABASES, NOISE_KIND, Coder, TestRecords, TorchCoder, kept, measure, measure_wavelets

from anyecg.engine import Model
from anyecg.models.export import count_parameters, load_networks
from anyecg.models.sizes import ModelConfig, TokenizerConfig
from anyecg.models.tokenizer import Tokenizer
from anyecg.training.datasets import prepare_databases
from anyecg.training.train_tokenizer import grid_of

PAPER = {"encoder_reach": "cardio-sparse", "codebook_gradient": True}
"""What the paper's tokenizer has beside its codes: preset ``paper``, but for blocks of ten seconds, not sixty."""


def _fsq(n_levels: int) -> dict[str, Any]:
    return {"quantizer": "fsq", "fsq_values": (8, 8, 4), "code_dim": 3 * n_levels}


# In the order in which they run: should time run out, the middle group is there first.
TRIALS = (
    Trial("0.5s-6x256", sizes_of(0.5, 6, 256)),
    Trial("1s-1x8192-paper", sizes_of(1.0, 1, 8192, **PAPER)),
    Trial("0.5s-6x256-fsq", sizes_of(0.5, 6, 256, **_fsq(6))),
    Trial("1s-8x4096", sizes_of(1.0, 8, 4096)),
    Trial(
        "0.5s-12x16-autoencoder", sizes_of(0.5, 12, 16, **latent_options(12, 16)), stage=ONLY_WAVEFORM, make=autoencoder
    ),
    Trial("0.25s-2x4096", sizes_of(0.25, 2, 4096)),
    Trial("0.5s-4x4096", sizes_of(0.5, 4, 4096)),
    Trial("0.5s-2x1024", sizes_of(0.5, 2, 1024)),
    Trial("0.5s-8x1024", sizes_of(0.5, 8, 1024)),
    Trial("1s-4x1024", sizes_of(1.0, 4, 1024)),
    Trial("0.25s-1x1024", sizes_of(0.25, 1, 1024)),
    Trial("0.25s-3x256", sizes_of(0.25, 3, 256)),
    Trial("0.25s-4x1024", sizes_of(0.25, 4, 1024)),
    Trial("0.5s-1x8192", sizes_of(0.5, 1, 8192)),
    Trial("0.5s-10x256-fsq", sizes_of(0.5, 10, 256, **_fsq(10))),
)

GROUPS = ((0.0, 30.0), (30.0, 60.0), (60.0, 120.0), (120.0, 1000.0))
"""Bits a second that are shown together."""

LEVELS = (8, 10, 12)
"""The shipped model has six; twelve are 193.6 bits/s."""

GAIN_AT_DB, N_GAIN = 6.0, 100
"""What decoding gains under noise is measured at this ratio, on the records of ``anyecg evaluate robustness``."""


def run(model: Model, data: Path, work: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Train and measure every trial that is missing, the shipped model, and wavelet coding at each trial's rate."""
    preparation = model.checkpoint.preparation
    prepared = prepare_databases(data, data / "splits.csv", preparation, progress)
    test = TestRecords.of(prepared, data, preparation)
    stem = f"shipped-{model.checkpoint.sha256[:8]}"
    shipped = kept(work / f"{stem}.json", lambda: measure(model, test))
    shipped |= kept(work / f"{stem}-gain.json", lambda: {"snr_gain_db": _gain(model, test)})
    numbers: dict[str, Any] = {"shipped": shipped | _of_shipped(model), "records": test.counts(), "trials": {}}
    numbers["more_levels"] = {}
    try:
        for n_levels in LEVELS:
            progress(f"shipped model with {n_levels} levels")
            numbers["more_levels"][str(n_levels)] = extended(n_levels, model, prepared, work, test)
        for trial in TRIALS:
            progress(f"trial {trial.name}")
            numbers["trials"][trial.name] = one(trial, data, work, test)
    except KeyboardInterrupt:
        progress("stopped: the table says which trials are missing")
    rates = {bits_per_second(trial.sizes) for trial in TRIALS} | {shipped["bits_per_second"]}
    rates |= {n["bits_per_second"] for n in numbers["more_levels"].values()}
    numbers["wavelets"] = {
        f"{rate:g}": kept(work / f"wavelets-{rate:g}.json", lambda rate=rate: measure_wavelets(rate, test))
        for rate in sorted(rates)
    }
    numbers["not_run"] = [t.name for t in TRIALS if t.name not in numbers["trials"]]
    numbers["budget"] = {"steps": STEPS, **WINDOWS}
    return numbers


def one(trial: Trial, data: Path, work: Path, test: TestRecords) -> dict[str, Any]:
    """Train and measure one trial, unless that was done."""

    def make() -> dict[str, Any]:
        network = trained(trial, data, work)
        return {
            **measure(TorchCoder(network), test),
            "fragment_s": trial.sizes.fragment_samples / trial.sizes.fs_hz,
            "n_levels": trial.sizes.n_levels,
            "codebook_size": trial.sizes.codebook_size,
            "learned_numbers": count_numbers(network),
            "seed": trial.seed,
        }

    return kept(work / trial.name / "result.json", make)


def extended(n_levels: int, model: Model, prepared: Path, work: Path, test: TestRecords) -> dict[str, Any]:
    """Measure the shipped tokenizer with more levels, unless that was done."""

    @cache
    def longer() -> Tokenizer:
        tokenizer, _ = load_networks(model.checkpoint.folder)
        return with_more_levels(tokenizer, n_levels, training_vectors(tokenizer, prepared))

    def make() -> dict[str, Any]:
        measured = measure(TorchCoder(longer()), test)
        return {**measured, "n_levels": n_levels, "learned_numbers": count_numbers(longer())}

    stem = f"shipped-{model.checkpoint.sha256[:8]}-{n_levels}-levels"
    gain = kept(work / f"{stem}-gain.json", lambda: {"snr_gain_db": _gain(TorchCoder(longer()), test)})
    return kept(work / f"{stem}.json", make) | gain


def _gain(coder: Coder, test: TestRecords) -> float:
    records = [record for _, record in test.records[DATABASES[0]][:N_GAIN]]
    return snr_gain_db(coder, records, test.noise, GAIN_AT_DB)


def bits_per_second(sizes: TokenizerConfig) -> float:
    """Return the rate of one lead, the 16-bit scale of each block included, to a tenth."""
    grid = grid_of(sizes)
    codes = sizes.n_levels * math.log2(sizes.codebook_size) / grid.fragment_s
    return round(codes + 16 * grid.fs_hz / grid.block_samples, 1)


def _of_shipped(model: Model) -> dict[str, Any]:
    sizes = ModelConfig(**model.checkpoint.config["model"])
    return {
        "fragment_s": sizes.tokenizer.fragment_samples / sizes.tokenizer.fs_hz,
        "n_levels": sizes.tokenizer.n_levels,
        "codebook_size": sizes.tokenizer.codebook_size,
        "learned_numbers": count_parameters(sizes)["tokenizer"],
    }


# -- tables --------------------------------------------------------------------------------------------------


def tables(numbers: dict[str, Any]) -> str:
    """Print waveforms in one table, beats in a second, codes in a third; grouped by bits a second."""
    rows = {name: n for name, n in numbers["trials"].items()}
    rows |= {f"wavelet coding, {rate}": n for rate, n in numbers["wavelets"].items()}
    rows["**shipped nano**, 3,000 steps"] = numbers["shipped"]
    rows |= {f"*shipped nano, {n} levels*": measured for n, measured in numbers["more_levels"].items()}
    grouped = [
        sorted(
            ((name, n) for name, n in rows.items() if low <= n["bits_per_second"] < high),
            key=lambda row: -row[1]["databases"][DATABASES[0]]["r"],
        )
        for low, high in GROUPS
    ]
    ordered = [row for group in grouped for row in group]
    parts = [
        _head(numbers),
        "## Waveform\n\nMedian over leads of Pearson's r and of PRD (%); in brackets the 95 % interval of the median, "
        "patients resampled.\n\n" + _waveform_table(ordered),
        "## Beats\n\nMedian absolute errors of what a beat finder reads off the decoded signal, against the measured "
        "one; of the heart rate over records.\n\n" + _beat_table(ordered),
        "## Codes\n\n"
        + _code_head()
        + _code_table([row for row in ordered if "noise" in row[1]])
        + _gain_line(numbers),
    ]
    return "\n\n".join(parts)


def _head(numbers: dict[str, Any]) -> str:
    counts = "; ".join(f"{name} {c['n_records']} of {c['n_patients']}" for name, c in numbers["records"].items())
    budget = numbers["budget"]
    lines = [
        f"Split: test, the first clean records of each database (records and patients: {counts}; subsets of the public "
        "databases; cinc2017 without its noisy class). Nothing was chosen on them.",
        f"Each trial: {budget['steps']} steps of {budget['n_many']} windows of many leads and {budget['n_few']} of one "
        "or two, 10 s each, the same in the same order; nano's trunk (width 192, 4 + 2 layers); lr 1.5e-3, bf16, one "
        "thread, seed 0. **Such short runs rank designs. They are not the model that ships**, which has a line of its "
        "own.",
        "*Shipped nano, 8, 10, 12 levels*: further residual levels of 256 codes added after training, placed by "
        "k-means over what six levels leave of train records; nothing else changed, the decoder not trained for them.",
        "One seed each: differences of r below about .005 mean nothing.",
        "Bits a second are those of one lead, 16 bits of scale in ten seconds included. Names: fragment length - "
        "levels x codebook size. The paper publishes no figures of its tokenizer to set beside these.",
    ]
    if numbers["not_run"]:
        lines.append(f"Not run for want of time: {', '.join(numbers['not_run'])}.")
    return "\n\n".join(lines)


def _waveform_table(rows: list[tuple[str, dict[str, Any]]]) -> str:
    head = "| codes | bits/s | " + " | ".join(f"{name} r | PRD" for name in DATABASES) + " | learned numbers |"
    lines = [head, "| --- |" + " --- |" * (head.count("|") - 2)]
    for name, n in rows:
        cells = []
        for database in DATABASES:
            d = n["databases"][database]
            (r_low, r_high), (prd_low, prd_high) = d["r_interval"], d["prd_interval"]
            cells.append(f"{d['r']:.3f} ({r_low:.3f}-{r_high:.3f}) | {d['prd']:.1f} ({prd_low:.1f}-{prd_high:.1f})")
        learned = f"{n['learned_numbers'] / 1e6:.2f} M" if "learned_numbers" in n else "none"
        lines.append(f"| {name} | {n['bits_per_second']:g} | {' | '.join(cells)} | {learned} |")
    return "\n".join(lines)


def _beat_table(rows: list[tuple[str, dict[str, Any]]]) -> str:
    columns = ("R, ms", "QRS, %", "ST, mV", "rate, 1/min")
    head = "| codes | bits/s | " + " | ".join(f"{name} {c}" for name in DATABASES for c in columns) + " |"
    lines = [head, "| --- |" + " --- |" * (head.count("|") - 2)]
    for name, n in rows:
        cells = []
        for database in DATABASES:
            d = n["databases"][database]
            cells += [f"{d['r_peak_error_ms']:.1f}", f"{d['qrs_amplitude_error_percent']:.1f}"]
            cells += [f"{d['st_level_error_mv']:.3f}", f"{d['heart_rate_error_bpm']:.2f}"]
        lines.append(f"| {name} | {n['bits_per_second']:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _code_head() -> str:
    return (
        "Share of each codebook in use and perplexity, level by level (ptb-xl test). *Kept*: share of first-level "
        "codes that stay under 12 dB of electrode motion (NSTDB em, the stretch kept for tests; the first 50 ptb-xl "
        "records); a code of few values is kept more easily than one of many, so compare equal sizes; FSQ and "
        "autoencoder have no first level, only a first group of dimensions. *r at 12 dB*: of the decoded noisy signal "
        "with the clean one.\n\n"
    )


def _code_table(rows: list[tuple[str, dict[str, Any]]]) -> str:
    lines = ["| codes | bits/s | usage, % | perplexity | kept, level 1 | kept, all levels | r at 12 dB |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for name, n in rows:
        use = n["databases"][DATABASES[0]]["codes"]
        usage = " ".join(f"{100 * level['usage']:.0f}" for level in use)
        perplexity = " ".join(f"{level['perplexity']:.0f}" for level in use)
        share = n["noise"]["12"]["codes_kept"]
        lines.append(
            f"| {name} | {n['bits_per_second']:g} | {usage} | {perplexity} | {share[0]:.3f} | "
            f"{sum(share) / len(share):.3f} | {n['noise']['12']['r']:.3f} |"
        )
    return "\n".join(lines)


def _gain_line(numbers: dict[str, Any]) -> str:
    by_levels = {numbers["shipped"].get("n_levels"): numbers["shipped"], **numbers["more_levels"]}
    gains = [f"{n} levels {measured['snr_gain_db']:.1f} dB" for n, measured in by_levels.items()]
    return (
        f"\n\nSNR that decoding gains at {GAIN_AT_DB:g} dB of electrode motion ({NOISE_KIND}), median over the leads "
        f"of the first {N_GAIN} ptb-xl records, shipped nano: {', '.join(gains)}."
    )
