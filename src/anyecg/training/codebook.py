"""The atlas of a codebook: what each code of the first level looks like, and what it goes with in *train* records.

It explains the model and claims nothing; `anyecg.training.meaning` measures on test patients, `anyecg.report.atlas`
draws the page.

Shapes: N fragments, S samples, V codes, L leads, P fragments of a record.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from anyecg.engine import Model
from anyecg.errors import ReadError
from anyecg.models.export import load_networks
from anyecg.models.tokenizer import Tokenizer, wavelet_analysis
from anyecg.report.atlas import LEAST_FOR_KIND, Atlas, Tally
from anyecg.tokens import Tokens, to_blocks, to_timeline
from anyecg.training.datasets import (
    BEATS_DATABASE,
    CITATIONS,
    SINGLE_LEAD_DATABASE,
    SUPERCLASS_DATABASE,
    WAVES_DATABASE,
    Corpus,
)
from anyecg.training.meaning import SEED, TOLD, Sample, Seen, joined, look

ATLAS_SAMPLES = {
    SUPERCLASS_DATABASE: Sample(400, 10.0),
    WAVES_DATABASE: Sample(200, 10.0),
    BEATS_DATABASE: Sample(50, 600.0),
    SINGLE_LEAD_DATABASE: Sample(800, 60.0),
}
"""About 220,000 fragments: a minute or two on two idle cores."""


def make_atlas(model: Model, folder: Path | None, data: Path | None, progress: Callable[[str], None] = print) -> Atlas:
    """Describe every code of the first level.

    Parameters
    ----------
    model : Model
    folder, data : Path or None
        The prepared and the restored databases; None: only what the checkpoint alone can tell.
    progress : callable
        Takes one line.

    Raises
    ------
    ReadError
        None of the databases the atlas draws on is there.
    """
    tokenizer, _ = load_networks(model.checkpoint.folder)
    config = tokenizer.config
    matrix, lower_hz = wavelet_analysis(config)
    edges_hz = [*np.unique(lower_hz).tolist(), config.high_hz]
    bands = partial(band_shares, matrix=matrix, lower_hz=lower_hz)
    progress("placing the codes on the map")
    bare = Atlas(
        model=model.describe(),
        fragment_s=model.checkpoint.grid.fragment_s,
        n_levels=config.n_levels,
        counts=None,
        decoded=np.empty(0),
        typical=None,
        low=np.empty(0),
        high=np.empty(0),
        bands_hz=tuple(pairwise(edges_hz)),
        bands=np.empty(0),
        place=placed(tokenizer.quantizer.codebooks[0].detach().numpy()),
        kind=np.full(config.codebook_size, -1),
    )
    if folder is None or data is None:
        progress("decoding each code alone")
        alone = decoded_alone(tokenizer)  # (V, n_leads, S)
        decoded = np.median(alone, axis=1)
        low, high = np.percentile(alone, [10, 90], axis=1)
        return replace(bare, decoded=decoded, low=low, high=high, bands=bands(decoded))
    seen, sources = [], []
    for database, sample in ATLAS_SAMPLES.items():
        corpus = Corpus(folder, "train", (database,))
        if corpus.entries:
            progress(f"{database}: {min(sample.n_records, len(corpus))} train records")
            part = look(model, corpus, data, sample, first_level_decoder(tokenizer))
            seen.append(part)
            n_patients = len(np.unique(part.patient))
            sources.append(f"{CITATIONS[database]}: {len(part.codes):,} fragments of {n_patients:,} train patients")
    if not seen:
        raise ReadError(f"{data}: none of {', '.join(ATLAS_SAMPLES)} found, expected one. Restore it there first.")
    progress("counting")
    return described(bare, joined(seen), bands, tuple(sources))


def described(
    bare: Atlas, seen: Seen, bands: Callable[[np.ndarray], np.ndarray], sources: tuple[str, ...] = ()
) -> Atlas:
    """Fill in an atlas with what was seen; codes without a fragment have zeros.

    ``bands`` turns fragments (n, S) into the share of each band in their energy (n, n_bands).
    """
    n_codes = len(bare.place)
    n_samples = seen.samples.shape[1]
    counts = np.bincount(seen.codes, minlength=n_codes)
    decoded, typical, low, high = (np.zeros((n_codes, n_samples), dtype=np.float32) for _ in range(4))
    shares = np.zeros((n_codes, len(bare.bands_hz)))
    for code, rows in rows_of_each(seen.codes):
        low[code], typical[code], high[code] = np.percentile(seen.samples[rows], [10, 50, 90], axis=0)
        if seen.decoded is not None:
            decoded[code] = np.median(seen.decoded[rows], axis=0)
        shares[code] = bands(seen.samples[rows]).mean(axis=0)
    tallies = tuple(
        tally(seen, name, n_codes, title, CITATIONS[database], as_ratio=name != "overlap")
        for name, title, database in (
            ("overlap", "Waves", WAVES_DATABASE),
            ("beat", "Beat class", BEATS_DATABASE),
            ("rhythm", "Rhythm", SINGLE_LEAD_DATABASE),
            ("diagnosis", "Diagnosis", SUPERCLASS_DATABASE),
            ("sex", "Sex", SUPERCLASS_DATABASE),
            ("age", "Age", SUPERCLASS_DATABASE),
        )
        if name in seen.labels
    )
    kind = bare.kind
    if "wave" in seen.labels:
        waves = tally(seen, "wave", n_codes, "", "")
        kind = np.where(waves.known >= LEAST_FOR_KIND, waves.counts.argmax(axis=1), -1)
    return replace(
        bare,
        counts=counts,
        decoded=decoded,
        typical=typical,
        low=low,
        high=high,
        bands=shares,
        kind=kind,
        tallies=tallies,
        sources=sources,
    )


def rows_of_each(codes: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield every code that occurs in (N,), and its rows."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    for rows in np.split(order, starts[1:]):
        if len(rows):
            yield int(codes[rows[0]]), rows


def tally(seen: Seen, name: str, n_codes: int, title: str, about: str, *, as_ratio: bool = True) -> Tally:
    """Count how often fragments of each code carry each label of one name of `TOLD`."""
    labels = seen.labels[name]
    known = labels[:, 0] >= 0
    codes = seen.codes[known]
    counts = np.zeros((n_codes, labels.shape[1]), dtype=np.int64)
    np.add.at(counts, codes, labels[known])
    _, patient = np.unique(seen.patient[known], return_inverse=True)
    pairs = np.unique(np.column_stack([codes, patient]), axis=0)
    return Tally(
        title=title,
        about=about,
        labels=TOLD[name],
        counts=counts,
        known=np.bincount(codes, minlength=n_codes),
        patients=np.bincount(pairs[:, 0], minlength=n_codes),
        as_ratio=as_ratio,
    )


def band_shares(samples: np.ndarray, matrix: np.ndarray, lower_hz: np.ndarray) -> np.ndarray:
    """Return the share of each wavelet band in the energy of fragments (n, S): (n, n_bands).

    The bands are those of the tokenizer's frequency view. A fragment without energy has shares of 0.
    """
    energy = np.square(samples @ matrix)  # (n, W)
    by_band = np.stack([energy[:, lower_hz == edge].sum(axis=1) for edge in np.unique(lower_hz)], axis=1)
    total = by_band.sum(axis=1, keepdims=True)
    return by_band / np.where(total > 0, total, 1)


def placed(vectors: np.ndarray) -> np.ndarray:
    """Lay code vectors (V, dim) on a plane (V, 2) by t-SNE of their cosine distances, seeded."""
    from sklearn.manifold import TSNE

    directions = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    # Of unit vectors the squared Euclidean distance, which t-SNE uses, is twice the cosine distance.
    perplexity = min(20.0, (len(vectors) - 1) / 3)
    plane = TSNE(2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=SEED)
    return np.asarray(plane.fit_transform(directions.astype(np.float32)), dtype=np.float64)


def first_level_only(tokenizer: Tokenizer) -> Tokenizer:
    """Return a copy whose residual codes all stand for nothing: it decodes the first level alone."""
    first = copy.deepcopy(tokenizer)
    with torch.no_grad():
        first.quantizer.codebooks[1:] = 0
    return first


def first_level_decoder(tokenizer: Tokenizer) -> Callable[[Tokens], np.ndarray]:
    """Return a function from tokens to the fragments (L, P, S) their first level decodes to, in their real context."""
    first = first_level_only(tokenizer)
    names = tokenizer.config.lead_names

    @torch.no_grad()
    def decode(tokens: Tokens) -> np.ndarray:
        codes = torch.from_numpy(
            to_blocks(np.maximum(tokens.codes, 0).astype(np.int64), tokens.grid.block_fragments, 0)
        )
        valid = torch.from_numpy(to_blocks(tokens.valid, tokens.grid.block_fragments, False))
        ids = torch.tensor([[names.index(lead) if lead in names else 0 for lead in tokens.leads]])
        samples = first.decode(codes, valid, ids.expand(len(codes), -1)).numpy()
        return to_timeline(samples, tokens.valid.shape[1])

    return decode


@torch.no_grad()
def decoded_alone(tokenizer: Tokenizer) -> np.ndarray:
    """Decode each code of the first level alone: amid a block of which nothing else was recorded.

    Returns
    -------
    ndarray of float32, shape (V, n_lead_names, S)
    """
    first, config = first_level_only(tokenizer), tokenizer.config
    middle, n_leads = config.block_fragments // 2, len(config.lead_names)
    alone = []
    for code in range(config.codebook_size):
        codes = torch.zeros(n_leads, 1, config.block_fragments, config.n_levels, dtype=torch.int64)
        codes[:, 0, middle, 0] = code
        valid = torch.zeros(n_leads, 1, config.block_fragments, dtype=torch.bool)
        valid[:, 0, middle] = True
        samples = first.decode(codes, valid, torch.arange(n_leads)[:, None])
        alone.append(samples[:, 0, middle].numpy())
    return np.stack(alone)
