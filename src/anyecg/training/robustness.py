"""How much rhythm codes change when a heart is recorded worse or differently: noise, rate, gain, leads, polarity.

Everything runs on test patients through the shipped graphs. The noise is real (MIT-BIH Noise Stress Test Database, the
stretch kept for tests), mixed in at a known signal-to-noise ratio in the model's pass-band; the *clean* signal is what
decoding is compared with. Baseline: the same band-pass and classical wavelet denoising. What becomes of a diagnosis is
measured by ``python benchmarks/quality robustness_probe``.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.engine import Model
from anyecg.leads import LIMB_LEADS, PRECORDIAL_LEADS, STANDARD_LEADS
from anyecg.metrics import pearson_r, snr_db
from anyecg.record import Record
from anyecg.signals import resample
from anyecg.tokens import Tokens
from anyecg.training.batches import mixed_in
from anyecg.training.datasets import READERS_OF, SUPERCLASS_DATABASE, Corpus, Entry, load_noise

N_RECORDS = 100
"""Records looked at; each has twelve leads of ten seconds, so an interval would be narrow."""

SNRS_DB = (-6.0, 0.0, 6.0, 12.0, 18.0, 24.0)
RATES_HZ = (100.0, 128.0, 250.0, 257.3, 360.0, 500.0, 1000.0)
SUBSETS = {
    **{"I": ("I",), "II": ("II",), "I, II": ("I", "II"), "I, II, V2": ("I", "II", "V2")},
    **{"limb leads": LIMB_LEADS, "I, II, V1-V6": ("I", "II", *PRECORDIAL_LEADS)},
}


def evaluate_robustness(
    model: Model, folder: Path, data: Path, progress: Callable[[str], None], n_records: int = N_RECORDS
) -> dict[str, Any]:
    """Measure codes and decoding of changed test records against those of the records as they are.

    Parameters
    ----------
    folder : Path
        The prepared databases.
    data : Path
        The restored databases: noise, and records at their own rate.

    Returns
    -------
    dict
        ``noise`` by kind and SNR, ``rates``, ``gains``, ``subsets``, ``polarity``; JSON-ready. ``r``: decoded against
        the clean signal, median over leads; ``codes_kept``: share of codes equal to those of the record as it is.
    """
    corpus = Corpus(folder, "test", (SUPERCLASS_DATABASE,))
    entries = [e for e in corpus.entries if e.clean and tuple(e.leads) == STANDARD_LEADS][:n_records]
    records = [corpus.record(e, model.checkpoint.grid.fs_hz) for e in entries]
    tokens = [model.tokenize(record) for record in records]
    progress("noise")
    noise = load_noise(data, "test", model.checkpoint.preparation)
    against_noise = {
        kind: {f"{snr:g}": _with_noise(model, records, tokens, noise[kind], snr) for snr in SNRS_DB} for kind in noise
    }
    progress("rates, gains, leads, polarity")
    return {
        "split": f"{SUPERCLASS_DATABASE} test patients, clean records, 10 s of 12 leads",
        "n_records": len(records),
        "n_patients": len({e.patient for e in entries}),
        "noise": against_noise,
        "rates": across_rates(model, entries, data / SUPERCLASS_DATABASE),
        "gains": {
            name: _agreement(model, tokens, records, [change(r) for r in records]) for name, change in GAINS.items()
        },
        "subsets": {name: _alone(model, tokens, records, leads) for name, leads in SUBSETS.items()},
        "polarity": {name: _inverted(model, tokens, records, *how) for name, how in EXCHANGES.items()},
    }


def _with_noise(
    model: Model, records: list[Record], tokens: list[Tokens], noise: np.ndarray, added_db: float
) -> dict[str, Any]:
    """Mix noise in, decode, compare with the clean signal; each lead gets its own stretch of noise, seeded."""
    rng = np.random.default_rng(0)
    r, baseline_r, gained, baseline_gained, kept, baseline_kept = [], [], [], [], [], []
    for clean, clean_tokens in zip(records, tokens, strict=True):
        noisy = with_noise(clean, noise, added_db, rng)
        noisy_tokens = model.tokenize(noisy)
        decoded = model.decode(noisy_tokens)
        denoised = noisy.with_(signal=np.stack([wavelet_denoised(row) for row in noisy.signal]))
        kept.append(noisy_tokens.codes == clean_tokens.codes)
        baseline_kept.append(model.tokenize(denoised).codes == clean_tokens.codes)
        for reference, input_, ours, theirs in zip(
            clean.signal, noisy.signal, decoded.signal, denoised.signal, strict=True
        ):
            before = snr_db(reference, input_)
            r.append(pearson_r(reference, ours))
            baseline_r.append(pearson_r(reference, theirs))
            gained.append(snr_db(reference, ours) - before)
            baseline_gained.append(snr_db(reference, theirs) - before)
    return {
        "r": _median(r),
        "wavelet_r": _median(baseline_r),
        "snr_gain_db": _median(gained),
        "wavelet_snr_gain_db": _median(baseline_gained),
        "codes_kept": _share_by_level(kept),
        "wavelet_codes_kept": _share_by_level(baseline_kept),
    }


def with_noise(record: Record, noise: np.ndarray, added_db: float, rng: np.random.Generator) -> Record:
    """Mix noise (n_channels, n_samples) into a prepared record at a signal-to-noise ratio.

    Each lead gets a stretch of its own, scaled to the lead's power.
    """
    noisy = record.signal.copy()
    for row in noisy:
        start = int(rng.integers(noise.shape[1] - len(row) + 1))
        row += mixed_in(row, noise[rng.integers(len(noise)), start : start + len(row)], added_db)
    return record.with_(signal=noisy)


def wavelet_denoised(x: np.ndarray) -> np.ndarray:
    """Denoise a band-passed waveform (n_samples,) with db6 wavelets: soft universal threshold, one for each level.

    Donoho and Johnstone 1994 (doi:10.1093/biomet/81.3.425); the noise of a level is estimated from its own
    coefficients (median absolute deviation), since electrode noise is not white.
    """
    import pywt

    coefficients = pywt.wavedec(np.nan_to_num(x), "db6", level=5, mode="periodization")
    shrunk = [coefficients[0]]
    for detail in coefficients[1:]:
        sigma = np.median(np.abs(detail)) / 0.6745
        shrunk.append(pywt.threshold(detail, sigma * np.sqrt(2 * np.log(len(x))), mode="soft"))
    return np.where(np.isfinite(x), pywt.waverec(shrunk, "db6", mode="periodization")[: len(x)], np.nan)


def across_rates(model: Model, entries: list[Entry], source: Path) -> dict[str, Any]:
    """Resample the raw records to each rate and compare with the records at their own rate."""
    read = READERS_OF[SUPERCLASS_DATABASE](source)
    raw = [read(entry.record)[0] for entry in entries]
    prepared = [model.prepare(record) for record in raw]
    tokens = [model.tokenize(record) for record in prepared]
    return {
        f"{rate:g}": _agreement(
            model,
            tokens,
            prepared,
            [r.with_(signal=resample(r.signal.astype(np.float64), r.fs, rate), fs=rate) for r in raw],
        )
        for rate in RATES_HZ
    }


def _agreement(model: Model, expected: list[Tokens], clean: list[Record], records: list[Record]) -> dict[str, Any]:
    """Tokenise and decode; compare codes with the expected ones, by level, and waveforms with the clean ones."""
    kept, r = [], []
    for tokens, reference, record in zip(expected, clean, records, strict=True):
        found = model.tokenize(record)
        n = min(found.codes.shape[1], tokens.codes.shape[1])
        kept.append(found.codes[:, :n] == tokens.codes[:, :n])
        for row, decoded in zip(reference.signal, model.decode(found).signal, strict=True):
            n_samples = min(len(row), len(decoded))  # a resampled record may be a sample shorter
            r.append(pearson_r(row[:n_samples], decoded[:n_samples]))
    return {"codes_kept": _share_by_level(kept), "r": _median(r)}


def _alone(model: Model, tokens: list[Tokens], records: list[Record], leads: tuple[str, ...]) -> dict[str, Any]:
    """Compare leads tokenised without the others with the same leads among all."""
    picked = [record.pick(leads) for record in records]
    return _agreement(model, [_of_leads(t, leads) for t in tokens], picked, picked)


def _inverted(
    model: Model, tokens: list[Tokens], records: list[Record], pairs: dict[str, str], inverted: tuple[str, ...]
) -> dict[str, Any]:
    """Compare each waveform under its wrong name, or upside down, with the same waveform as it was recorded."""
    changed = [swapped(record, pairs, inverted) for record in records]
    moved = [_of_leads(t, tuple(pairs.get(name, name) for name in t.leads)) for t in tokens]
    return _agreement(model, moved, changed, changed)


def _of_leads(tokens: Tokens, leads: tuple[str, ...]) -> Tokens:
    rows = [tokens.leads.index(name) for name in leads]
    return replace(tokens, codes=tokens.codes[rows], valid=tokens.valid[rows], leads=leads)


def swapped(record: Record, pairs: dict[str, str], inverted: tuple[str, ...]) -> Record:
    """Return the record as exchanged electrodes would have given it: the rows change names, some change sign."""
    rows = [record.leads.index(pairs.get(name, name)) for name in record.leads]
    signs = np.array([-1 if name in inverted else 1 for name in record.leads], dtype=np.float32)
    return record.with_(signal=record.signal[rows] * signs[:, None])


EXCHANGES: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "as recorded": ({}, ()),
    "arms exchanged": ({"II": "III", "III": "II", "aVR": "aVL", "aVL": "aVR"}, ("I",)),
    "left arm and leg exchanged": ({"I": "II", "II": "I", "aVL": "aVF", "aVF": "aVL"}, ("III",)),
    "all leads inverted": ({}, STANDARD_LEADS),
    "lead I inverted": ({}, ("I",)),
}
"""Of each: which lead's waveform a lead shows, and which leads are upside down."""

POLARITY: dict[str, Callable[[Record], Record]] = {
    name: partial(swapped, pairs=pairs, inverted=inverted) for name, (pairs, inverted) in EXCHANGES.items()
}


def _scaled(gain: float, record: Record) -> Record:
    return record.with_(signal=record.signal * np.float32(gain))


GAINS: dict[str, Callable[[Record], Record]] = {
    **{f"{gain:g}": partial(_scaled, gain) for gain in (0.1, 0.3, 3.0, 10.0)},
    "unknown": lambda record: record.with_(gain_known=False),
}


def _median(values: list[float]) -> float:
    return round(float(np.nanmedian(values)), 4)


def _share_by_level(kept: list[np.ndarray]) -> list[float]:
    """Return the share of True of bool arrays (L, P, K), for each of the K levels."""
    return [round(float(share), 4) for share in np.concatenate([k.reshape(-1, k.shape[-1]) for k in kept]).mean(axis=0)]
