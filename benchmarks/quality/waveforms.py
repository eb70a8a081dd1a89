"""How much of a waveform a way of coding keeps: r, PRD, beats, ST level, code use, steadiness under noise.

The same function measures the shipped model, a trial's torch network and wavelet coding. Test patients only.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from anyecg.metrics import patient_bootstrap, pearson_r, prd, usage_and_perplexity
from anyecg.models.tokenizer import Tokenizer
from anyecg.record import Record
from anyecg.signals import Preparation
from anyecg.tokens import Tokens, to_blocks, to_fragments, to_signal, to_timeline
from anyecg.training.batches import mixed_in
from anyecg.training.datasets import Corpus, Entry, load_noise
from anyecg.training.evaluate import beat_errors, wavelet_coded
from anyecg.training.train_tokenizer import grid_of

N_RECORDS = 150
"""The first so many clean test records of each database, in the order of the corpus."""

N_NOISY = 50
"""Of these so many are measured with noise, too."""

DATABASES = ("ptb-xl", "cinc2017")
NOISE_KIND, SNRS_DB = "em", (12.0, 6.0)
"""Electrode motion, the noise that looks most like beats."""


class Coder(Protocol):
    """What makes codes of a prepared record, and a record of codes: the shipped model, or a trial."""

    def tokenize(self, record: Record) -> Tokens: ...  # noqa: D102

    def decode(self, tokens: Tokens) -> Record: ...  # noqa: D102


@dataclass(frozen=True)
class TorchCoder:
    """A torch tokenizer that codes and decodes whole records as the engine does."""

    tokenizer: Tokenizer

    @torch.no_grad()
    def tokenize(self, record: Record) -> Tokens:
        """Return the codes of a prepared record."""
        grid = grid_of(self.tokenizer.config)
        cut = to_fragments(record, grid)
        lead_ids = self._lead_ids(record.leads, len(cut.valid))
        codes = self.tokenizer.codes(torch.from_numpy(cut.samples), torch.from_numpy(cut.valid), lead_ids).numpy()
        n_fragments = -(-record.n_samples // grid.fragment_samples)
        valid = to_timeline(cut.valid, n_fragments)
        codes = np.where(valid[..., None], to_timeline(codes, n_fragments), -1).astype(np.int32)
        size = self.tokenizer.config.codebook_size
        return Tokens(codes, valid, cut.scale_mv, grid, size, record.leads, record.n_samples, record_id=record.id)

    @torch.no_grad()
    def decode(self, tokens: Tokens) -> Record:
        """Return the waveform the codes stand for, mV; NaN where nothing was recorded."""
        grid = tokens.grid
        codes = torch.from_numpy(to_blocks(np.maximum(tokens.codes, 0).astype(np.int64), grid.block_fragments, 0))
        valid = to_blocks(tokens.valid, grid.block_fragments, False)
        lead_ids = self._lead_ids(tokens.leads, len(codes))
        samples = self.tokenizer.decode(codes, torch.from_numpy(valid), lead_ids).numpy()
        signal = to_signal(np.where(valid[..., None], samples, np.nan), tokens.scale_mv, tokens.n_samples)
        return Record(signal, grid.fs_hz, tokens.leads, id=tokens.record_id, format="decoded")

    def _lead_ids(self, leads: tuple[str, ...], n_blocks: int) -> torch.Tensor:
        names = self.tokenizer.config.lead_names
        return torch.tensor([[names.index(lead) if lead in names else 0 for lead in leads]]).expand(n_blocks, -1)


@dataclass(frozen=True)
class TestRecords:
    """What is measured: the records of each database, and noise that training did not see."""

    records: dict[str, list[tuple[Entry, Record]]]
    noise: np.ndarray

    @classmethod
    def of(cls, prepared: Path, data: Path, preparation: Preparation, n_records: int = N_RECORDS) -> "TestRecords":
        """Read the first clean test records of each database."""
        corpus = Corpus(prepared, "test", DATABASES)
        records = {}
        for name in DATABASES:
            entries = [e for e in corpus.entries if e.database == name and e.clean][:n_records]
            records[name] = [(entry, corpus.record(entry, preparation.fs_hz)) for entry in entries]
        return cls(records, load_noise(data, "test", preparation)[NOISE_KIND])

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many records and patients each database gives."""
        return {
            name: {"n_records": len(chosen), "n_patients": len({e.patient for e, _ in chosen})}
            for name, chosen in self.records.items()
        }


def measure(coder: Coder, test: TestRecords) -> dict[str, Any]:
    """Measure a coder on every database, and under noise on the first."""
    by_database, bits_per_second = {}, 0.0
    for name, chosen in test.records.items():
        pairs, codes = [], []
        for entry, record in chosen:
            tokens = coder.tokenize(record)
            bits_per_second, size = tokens.bits_per_second, tokens.codebook_size
            pairs.append((entry.patient, record, coder.decode(tokens)))
            codes.append(tokens.codes[tokens.valid])
        by_database[name] = fidelity(pairs) | {"codes": code_use(np.concatenate(codes), size)}
    first = next(iter(test.records.values()))[:N_NOISY]
    return {
        "bits_per_second": round(bits_per_second, 1),
        "databases": by_database,
        "noise": {f"{snr:g}": under_noise(coder, [r for _, r in first], test.noise, snr) for snr in SNRS_DB},
    }


def measure_wavelets(bits_per_second: float, test: TestRecords) -> dict[str, Any]:
    """Measure wavelet coding at a rate (see `anyecg.training.evaluate.wavelet_coded`)."""

    def coded(record: Record) -> Record:
        rows = [wavelet_coded(row, bits_per_second, record.fs) for row in record.signal]
        return record.with_(signal=np.stack(rows).astype(np.float32))

    return {
        "bits_per_second": bits_per_second,
        "databases": {
            name: fidelity([(entry.patient, record, coded(record)) for entry, record in chosen])
            for name, chosen in test.records.items()
        },
    }


def fidelity(pairs: list[tuple[str, Record, Record]]) -> dict[str, Any]:
    """Compare decoded records with measured ones.

    Parameters
    ----------
    pairs : list of (patient, measured, decoded)

    Returns
    -------
    dict
        Medians over leads of r and PRD with 95 % patient-bootstrap intervals, medians over beats, over records for the
        heart rate.
    """
    patients = np.array([patient for patient, measured, _ in pairs for _ in measured.leads])
    rows = [(x, y) for _, measured, decoded in pairs for x, y in zip(measured.signal, decoded.signal, strict=True)]
    found: dict[str, Any] = {"n_leads": len(rows)}
    for name, metric, digits in (("r", pearson_r, 4), ("prd", prd, 2)):
        values = np.array([metric(x, y) for x, y in rows])
        values_ok, patients_ok = values[np.isfinite(values)], patients[np.isfinite(values)]
        interval = patient_bootstrap(lambda chosen, v=values_ok: float(np.median(v[chosen])), patients_ok)
        found[name] = round(float(np.median(values_ok)), digits)
        found[f"{name}_interval"] = [round(edge, digits) for edge in interval]
    beats = [beat_errors(measured, decoded) for _, measured, decoded in pairs]
    for key, digits in BEAT_ERRORS.items():
        values = np.concatenate([b[key] for b in beats])
        found[key] = round(float(np.median(values)), digits) if len(values) else None
    return found


BEAT_ERRORS = {
    "r_peak_error_ms": 2,
    "qrs_amplitude_error_percent": 2,
    "st_level_error_mv": 4,
    "heart_rate_error_bpm": 3,
}
"""Errors of beats found in decoded signals (`anyecg.training.evaluate.beat_errors`), and digits worth keeping."""


def code_use(codes: np.ndarray, codebook_size: int) -> list[dict[str, float]]:
    """Return usage and perplexity of each level of codes (n, K)."""
    use = [usage_and_perplexity(level, codebook_size) for level in codes.T]
    return [{"usage": round(share, 4), "perplexity": round(perplexity, 1)} for share, perplexity in use]


def under_noise(coder: Coder, records: list[Record], noise: np.ndarray, snr_db: float) -> dict[str, Any]:
    """Mix noise in; return the share of codes that stay, and r of the decoded with the clean signal.

    Each lead gets its own stretch of noise, seeded.
    """
    rng = np.random.default_rng(0)
    kept, r, r_noisy = [], [], []
    for clean in records:
        noisy = clean.signal.copy()
        for row in noisy:
            start = int(rng.integers(noise.shape[1] - len(row) + 1))
            row += mixed_in(row, noise[rng.integers(len(noise)), start : start + len(row)], snr_db)
        tokens = coder.tokenize(clean.with_(signal=noisy))
        kept.append((tokens.codes == coder.tokenize(clean).codes)[tokens.valid])
        r += [pearson_r(x, y) for x, y in zip(clean.signal, coder.decode(tokens).signal, strict=True)]
        r_noisy += [pearson_r(x, y) for x, y in zip(clean.signal, noisy, strict=True)]
    share = np.concatenate(kept).mean(axis=0)  # (K,)
    return {
        "n_records": len(records),
        "codes_kept": [round(float(s), 4) for s in share],
        "r": round(float(np.nanmedian(r)), 4),
        "r_of_input": round(float(np.nanmedian(r_noisy)), 4),
    }


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a JSON file holds; without one, make it and write it."""
    if not path.exists():
        numbers = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(numbers, indent=1) + "\n")
        partial.replace(path)
    return json.loads(path.read_text())
