"""Corpora -> batches: any number of leads, any length, clean and noisy, all in one scheme.

A batch is a pure function of (seed, step): interrupted and resumed training sees what uninterrupted training sees.

A step takes two *parts* so that little is padding: recordings of many leads (12) and of few (1 or 2). Within a part
every item has its own subset of leads and its own length; what is absent is not valid.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Queue

import numpy as np

from anyecg.tokens import LEAST_RECORDED, Grid, block_scale
from anyecg.training.datasets import Corpus, Entry


@dataclass
class Part:
    """B windows, L leads, P fragments, S samples.

    ``noisy`` and ``clean`` float32 (B, L, P, S), both in units of the noisy signal's block scale; ``recorded`` bool
    (B, L, P, S); ``valid`` bool (B, L, P); ``lead_ids`` int64 (B, L); ``scale_mv`` float32 (B, n_blocks, L);
    ``gain_known`` bool (B,); ``source_fs`` float32 (B,); ``age weight_kg sex`` float32 (B,), NaN = unknown, sex 0
    female 1 male.
    """

    noisy: np.ndarray
    clean: np.ndarray
    recorded: np.ndarray
    valid: np.ndarray
    lead_ids: np.ndarray
    scale_mv: np.ndarray
    gain_known: np.ndarray
    source_fs: np.ndarray
    age: np.ndarray
    weight_kg: np.ndarray
    sex: np.ndarray


@dataclass(frozen=True)
class Augmentation:
    """How recordings are varied. Probabilities are per item."""

    noise_probability: float = 0.5
    snr_db: tuple[float, float] = (-6.0, 24.0)
    subset_probability: float = 0.4
    unknown_lead_probability: float = 0.1
    inverted_probability: float = 0.03
    shift_probability: float = 0.5
    short_probability: float = 0.1


class BatchMaker:
    """Draws parts from a corpus.

    Parameters
    ----------
    corpus : Corpus
    noise : dict of ndarray
        As `datasets.load_noise` returns it.
    grid : Grid
    lead_names : tuple of str
        Leads with an embedding; the first is "unknown".
    augmentation : Augmentation
    """

    def __init__(
        self,
        corpus: Corpus,
        noise: dict[str, np.ndarray],
        grid: Grid,
        lead_names: tuple[str, ...],
        augmentation: Augmentation,
    ) -> None:
        self.corpus, self.noise, self.grid, self.augmentation = corpus, noise, grid, augmentation
        self.lead_ids = {name: i for i, name in enumerate(lead_names)}
        clean = [e for e in corpus.entries if e.clean and e.n_samples >= grid.block_samples // 4]
        self.many = [e for e in clean if len(e.leads) > 2]
        self.few = [e for e in clean if len(e.leads) <= 2]
        # A long recording counts as the square root of its blocks: half an hour is not worth 180 times ten seconds.
        self.few_weights = self._weights(self.few)
        self.many_weights = self._weights(self.many)

    def _weights(self, entries: list[Entry]) -> np.ndarray:
        blocks = np.array([max(1.0, e.n_samples / self.grid.block_samples) for e in entries])
        return np.sqrt(blocks) / np.sqrt(blocks).sum() if len(blocks) else blocks

    def parts(self, seed: int, step: int, n_many: int, n_few: int, blocks_few: int = 1) -> list[Part]:
        """Return the parts of one step: ``n_many`` items of one block, ``n_few`` items of ``blocks_few`` blocks."""
        rng = np.random.default_rng([seed, step])
        parts = []
        if n_many and self.many:
            chosen = rng.choice(len(self.many), n_many, p=self.many_weights)
            parts.append(self._part([self.many[i] for i in chosen], 1, rng))
        if n_few and self.few:
            chosen = rng.choice(len(self.few), n_few, p=self.few_weights)
            parts.append(self._part([self.few[i] for i in chosen], blocks_few, rng))
        return parts

    def _part(self, entries: list[Entry], n_blocks: int, rng: np.random.Generator) -> Part:
        grid, n_items = self.grid, len(entries)
        n_leads = max(len(e.leads) for e in entries)
        n_samples = n_blocks * grid.block_samples
        clean = np.full((n_items, n_leads, n_samples), np.nan, dtype=np.float32)
        noisy = clean.copy()
        lead_ids = np.zeros((n_items, n_leads), dtype=np.int64)
        for i, entry in enumerate(entries):
            window = self._window(entry, n_samples, rng)  # (leads of the entry, up to n_samples)
            clean[i, : len(window), : window.shape[1]] = window
            noisy[i] = self._with_noise(clean[i], rng)
            if rng.random() >= self.augmentation.unknown_lead_probability:
                lead_ids[i, : len(window)] = [self.lead_ids.get(name, 0) for name in entry.leads]
        return self._on_grid(clean, noisy, lead_ids, entries, n_blocks)

    def _window(self, entry: Entry, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Cut a window at random; leave leads out, shorten it, turn it over, each now and then."""
        chance = self.augmentation
        room = entry.n_samples - n_samples
        if room > 0:
            start = int(rng.integers(room + 1))
        else:  # a ten-second record has one block: shift the grid against it, at the price of a cut last fragment
            start = int(rng.integers(self.grid.fragment_samples)) if rng.random() < chance.shift_probability else 0
        window = self.corpus.signal(entry, start, start + n_samples)
        if rng.random() < chance.short_probability:
            window = window[:, : int(rng.integers(window.shape[1] // 5, window.shape[1]))]
        if rng.random() < chance.inverted_probability:
            window = -window
        n_leads = len(window)
        if n_leads > 1 and rng.random() < chance.subset_probability:
            absent = rng.permutation(n_leads)[int(rng.integers(1, n_leads)) :]
            window[absent] = np.nan
        return window

    def _with_noise(self, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Add real electrode noise at a random signal-to-noise ratio, each lead with its own stretch."""
        chance = self.augmentation
        if not self.noise or rng.random() >= chance.noise_probability:
            return clean
        kinds = sorted(self.noise)
        source = self.noise[kinds[rng.integers(len(kinds))]]
        snr_db = rng.uniform(*chance.snr_db)
        noisy, n = clean.copy(), clean.shape[1]
        for row in noisy:
            start = int(rng.integers(source.shape[1] - n + 1))
            row += mixed_in(row, source[rng.integers(len(source)), start : start + n], snr_db)
        return noisy

    def _on_grid(
        self, clean: np.ndarray, noisy: np.ndarray, lead_ids: np.ndarray, entries: list[Entry], n_blocks: int
    ) -> Part:
        grid, (n_items, n_leads, _) = self.grid, clean.shape
        recorded = np.isfinite(noisy)
        clean, noisy = (np.where(recorded, x, np.float32(0)) for x in (clean, noisy))
        in_blocks = (n_items, n_leads, n_blocks, grid.block_samples)
        n_recorded = recorded.reshape(in_blocks).sum(axis=-1)
        energy = np.square(noisy.reshape(in_blocks)).sum(axis=-1)
        scale = block_scale(energy, n_recorded, grid.scale_per)  # (B, L, n_blocks)
        on_grid = (n_items, n_leads, n_blocks * grid.block_fragments, grid.fragment_samples)
        per_sample = np.repeat(scale, grid.block_samples, axis=-1)
        recorded = recorded.reshape(on_grid)
        nan = np.float32("nan")
        return Part(
            noisy=(noisy / per_sample).reshape(on_grid),
            clean=(clean / per_sample).reshape(on_grid),
            recorded=recorded,
            valid=recorded.mean(axis=-1) >= LEAST_RECORDED,
            lead_ids=lead_ids,
            scale_mv=scale.transpose(0, 2, 1),
            gain_known=np.array([e.gain_known for e in entries]),
            source_fs=np.array([e.source_fs for e in entries], dtype=np.float32),
            age=np.array([nan if e.age is None else e.age for e in entries], dtype=np.float32),
            weight_kg=np.array([nan if e.weight_kg is None else e.weight_kg for e in entries], dtype=np.float32),
            sex=np.array([nan if e.sex is None else e.sex == "male" for e in entries], dtype=np.float32),
        )


def mixed_in(clean: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Return ``noise`` scaled so that adding it to ``clean`` (NaN = not recorded) gives the signal-to-noise ratio."""
    good = np.isfinite(clean)
    if not good.any():
        return np.zeros_like(clean)
    signal_power = float(np.mean(np.square(clean[good])))
    noise_power = float(np.mean(np.square(noise))) + 1e-12
    return noise * np.float32(np.sqrt(signal_power / noise_power * 10 ** (-snr_db / 10)))


def prefetched(make: Callable[[int], list[Part]], first: int, last: int) -> Iterator[list[Part]]:
    """Yield ``make(step)`` for each step, made one ahead in a thread."""
    queue: Queue[list[Part] | BaseException] = Queue(maxsize=2)
    stop = threading.Event()

    def work() -> None:
        try:
            for step in range(first, last):
                if stop.is_set():
                    return
                queue.put(make(step))
        except BaseException as error:  # noqa: BLE001  # handed to the consumer, who raises it
            queue.put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        for _ in range(first, last):
            item = queue.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        while thread.is_alive():  # let a producer that waits for room finish
            if not queue.empty():
                queue.get_nowait()
            thread.join(timeout=0.05)
