"""Checkpoint + prepared record -> codes, decoded signal, embeddings, surprise. NumPy in, NumPy out; no torch.

`load` returns a `Model`; its graphs are opened by onnxruntime when they are first used.
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.checkpoint import Checkpoint, open_checkpoint
from anyecg.errors import SignalError
from anyecg.graphs import Graphs
from anyecg.heads import Head, head_config, head_names, open_head
from anyecg.pieces import prepare_in_pieces
from anyecg.record import Record
from anyecg.tokens import Tokens, to_blocks, to_fragments, to_signal, to_timeline

GRAPHS = ("tokenizer_encoder.onnx", "tokenizer_decoder.onnx", "encoder.onnx")

FAST_GRAPHS = ("encoder_int8.onnx", "guess.onnx")
"""What `Model.embed` and `Model.surprise` use when asked to be fast; opened when they are first used. A checkpoint may
lack them."""

ENCODER_INPUTS = ("codes", "valid", "mask", "lead_ids", "log_scale", "scale_known")

SURPRISE_PASSES = 3
"""Every third fragment is hidden at a time: a share of codes hidden that pre-training saw."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """Embeddings of one record.

    Parameters
    ----------
    per_fragment : ndarray of float32, shape (n_leads, n_fragments, width)
        NaN where nothing was recorded.
    pooled : ndarray of float32, shape (width,)
        Mean over the recorded fragments of all leads.
    leads : tuple of str
    fragment_s : float
        Length of a fragment in seconds.
    """

    per_fragment: np.ndarray
    pooled: np.ndarray
    leads: tuple[str, ...]
    fragment_s: float

    def per_lead(self) -> np.ndarray:
        """Return each lead's mean over time, shape (n_leads, width); NaN for a lead without a recorded fragment."""
        valid = np.isfinite(self.per_fragment[..., 0])
        total = np.nansum(self.per_fragment, axis=1)
        n_valid = valid.sum(axis=1)[:, None]
        return np.where(n_valid > 0, total / np.maximum(n_valid, 1), np.nan).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Windows:
    """A record's tokens in the encoder's windows: W windows, L leads, P fragments, K levels.

    ``starts`` int (W,), the fragments at which they begin; ``n_new``: fragments that only the last window holds, it
    overlaps the one before it. The rest are the inputs of `anyecg.models.encoder.Encoder`: ``codes`` int64
    (W, L, P, K), ``valid`` and ``mask`` bool (W, L, P), ``lead_ids`` int64 (W, L), ``log_scale`` float32 (W, L),
    ``scale_known`` bool (W, L).
    """

    starts: np.ndarray
    n_new: int
    codes: np.ndarray
    valid: np.ndarray
    mask: np.ndarray
    lead_ids: np.ndarray
    log_scale: np.ndarray
    scale_known: np.ndarray

    def cut(self, on_timeline: np.ndarray) -> np.ndarray:
        """Inverse of `joined` for what is per fragment: (L, n_fragments, ...) -> (W, L, P, ...)."""
        return _cut(on_timeline, self.starts, self.valid.shape[2])

    def some(self, which: np.ndarray) -> "Windows":
        """Return some of the windows, by their numbers."""
        arrays: dict[str, Any] = {name: getattr(self, name)[which] for name in ENCODER_INPUTS}
        return replace(self, starts=self.starts[which], **arrays)

    def hidden(self, mask: np.ndarray, gain_known: bool) -> "Windows":
        """Return the windows with other fragments hidden: bool (W, L, P)."""
        return replace(self, mask=mask, scale_known=(self.valid & ~mask).any(axis=2) & gain_known)

    @staticmethod
    def together(several: "list[Windows]") -> "Windows":
        """Return the windows of several as one batch."""
        arrays: dict[str, Any] = {name: np.concatenate([getattr(w, name) for w in several]) for name in ENCODER_INPUTS}
        return replace(several[0], **arrays)

    def joined(self, per_window: np.ndarray) -> np.ndarray:
        """Lay what was found in each window, (W, L, P, ...) or (W, L), on one time axis: (L, n_fragments, ...)."""
        if per_window.ndim == 2:
            per_window = np.repeat(per_window[..., None], self.valid.shape[2], axis=-1)
        return np.concatenate([*per_window[:-1], per_window[-1][:, -self.n_new :]], axis=1)


class Model:
    """A checkpoint ready for inference.

    Every method takes a record of any rate and prepares it first, unless it is at the model's rate and says that it was
    prepared (``source_fs`` is set).

    Parameters
    ----------
    checkpoint : Checkpoint
    threads : int, optional
        Cores to use; default: all that this process may use.
    """

    def __init__(self, checkpoint: Checkpoint, threads: int | None = None) -> None:
        self.checkpoint = checkpoint
        self.threads = threads or usable_cores()
        self._graphs = Graphs(checkpoint.folder, self.threads)
        self._head_opener = ThreadPoolExecutor(1, thread_name_prefix="anyecg-heads")
        self._heads: dict[str, Future[Head | None]] = {}

    def __repr__(self) -> str:
        return f"<anyecg.Model {self.checkpoint.name} {self.checkpoint.config['version']}>"

    # -- the data's way --------------------------------------------------------------------------------------

    def prepare(self, record: Record) -> Record:
        """Return the record at the model's rate and band; a long one minute by minute, as `anyecg.Stream` does."""
        wanted = self.checkpoint.preparation
        if record.fs == wanted.fs_hz and record.source_fs is not None:
            return record
        return prepare_in_pieces(record, wanted)

    def tokenize(self, record: Record, *, allow_nothing: bool = False) -> Tokens:
        """Return the rhythm codes of a record.

        Parameters
        ----------
        record : Record
        allow_nothing : bool
            Return tokens, none of them valid, also if no fragment is recorded: of a gap in a longer recording.

        Raises
        ------
        SignalError
            No fragment is recorded.
        """
        prepared, grid = self.prepare(record), self.checkpoint.grid
        fragments = to_fragments(prepared, grid)
        if not (allow_nothing or fragments.valid.any()):
            raise SignalError(
                f"{record.id}: no {grid.fragment_s:g} s stretch is recorded, expected at least one. Check the source."
            )
        lead_ids = self._lead_ids(prepared.leads, len(fragments.valid))
        by_lead = self.checkpoint.config["model"]["tokenizer"]["encoder_reach"] == "own-lead"
        run = self._graphs.run_by_lead if by_lead else self._graphs.run
        codes = run(GRAPHS[0], None, samples=fragments.samples, valid=fragments.valid, lead_ids=lead_ids)[0]
        n_fragments = -(-prepared.n_samples // grid.fragment_samples)
        valid = to_timeline(fragments.valid, n_fragments)
        codes = np.where(valid[..., None], to_timeline(codes, n_fragments), -1).astype(np.int32)
        return Tokens(
            codes,
            valid,
            fragments.scale_mv,
            grid,
            self.checkpoint.config["model"]["tokenizer"]["codebook_size"],
            prepared.leads,
            prepared.n_samples,
            record_id=record.id,
            gain_known=record.gain_known,
        )

    def decode(self, tokens: Tokens) -> Record:
        """Return the waveform the codes stand for, in mV at the model's rate; NaN where nothing was recorded."""
        grid = tokens.grid
        codes = to_blocks(np.maximum(tokens.codes, 0).astype(np.int64), grid.block_fragments, 0)
        valid = to_blocks(tokens.valid, grid.block_fragments, False)
        lead_ids = self._lead_ids(tokens.leads, len(codes))
        samples = self._graphs.run("tokenizer_decoder.onnx", None, codes=codes, valid=valid, lead_ids=lead_ids)[0]
        samples = np.where(valid[..., None], samples, np.nan)
        signal = to_signal(samples, tokens.scale_mv, tokens.n_samples)
        return Record(
            signal, grid.fs_hz, tokens.leads, id=tokens.record_id, format="decoded", gain_known=tokens.gain_known
        )

    def embed(self, record: Record | Tokens, *, fast: bool = False) -> Embedding:
        """Return the embedding of every fragment, and their mean.

        ``fast`` multiplies in 8 bits, if the checkpoint has the graph for it: a third of the time, and embeddings that
        correlate with the exact ones by .999. Made for long recordings.
        """
        tokens = record if isinstance(record, Tokens) else self.tokenize(record)
        (embeddings,) = self._encode(tokens, None, ["embeddings"], fast=fast)
        per_fragment = np.where(tokens.valid[..., None], embeddings, np.nan).astype(np.float32)
        pooled = np.full(per_fragment.shape[-1], np.nan, dtype=np.float32)
        if tokens.valid.any():
            pooled = per_fragment[tokens.valid].mean(axis=0)
        return Embedding(per_fragment, pooled, tokens.leads, tokens.grid.fragment_s)

    def surprise(self, tokens: Tokens, only: np.ndarray | None = None, *, fast: bool = False) -> np.ndarray:
        """Return how unlikely each fragment's codes are when they are hidden and guessed from the others.

        Parameters
        ----------
        tokens : Tokens
        only : ndarray of int, optional
            The encoder's windows to ask; default: all.
        fast : bool
            As for `embed`.

        Returns
        -------
        ndarray of float32, shape (n_leads, n_fragments)
            Mean over the levels of -log2 p, bits; NaN where nothing was recorded, or not asked.
        """
        leads, positions = np.indices(tokens.valid.shape)
        turn_of = (leads + positions) % SURPRISE_PASSES
        whole = self.windows(tokens)
        asked = np.arange(len(whole.valid)) if only is None else only
        masks = [(turn_of == turn) & tokens.valid for turn in range(SURPRISE_PASSES)]
        turns = [whole.some(asked).hidden(whole.cut(mask)[asked], tokens.gain_known) for mask in masks]
        nll = self._hidden_nll(Windows.together(turns), fast=fast)
        of_turn = np.split(nll.mean(axis=-1) / np.log(2), SURPRISE_PASSES)
        bits = np.full(whole.valid.shape, np.nan, dtype=np.float32)
        bits[asked] = np.select([turn.mask for turn in turns], of_turn, np.nan)
        return whole.joined(bits)

    def generate(self, tokens: Tokens, hidden: np.ndarray, *, draws: int = 16, seed: int = 0) -> np.ndarray:
        """Draw what the hidden fragments may have looked like, given all others.

        Parameters
        ----------
        tokens : Tokens
            Its ``valid`` also covers the hidden fragments; their codes do not matter. The scale of a lead that is
            hidden from end to end does not matter either: it is guessed.
        hidden : ndarray of bool, shape (n_leads, n_fragments)
        draws : int
            Each level's code of each fragment is drawn from the probabilities the encoder gives it.
        seed : int

        Returns
        -------
        ndarray of float32, shape (draws, n_leads, n_samples)
            mV at the model's rate; fragments that are not hidden are decoded from their own codes.
        """
        log_p, log_rms = self._encode(tokens, hidden, ["log_p", "log_rms"])  # (L, n_fragments, K, V), (L, n_fragments)
        whole = hidden.any(axis=1) & ~(tokens.valid & ~hidden).any(axis=1)
        guessed_mv = np.exp(log_rms.mean(axis=1))  # one for the whole record: a lead does not change its gain
        scale_mv = np.where(whole, guessed_mv, tokens.scale_mv).astype(np.float32)
        rng = np.random.default_rng(seed)
        signals = []
        for _ in range(draws):
            drawn = (log_p[hidden] + rng.gumbel(size=log_p[hidden].shape)).argmax(axis=-1)
            codes = tokens.codes.copy()
            codes[hidden] = drawn
            signals.append(self.decode(replace(tokens, codes=codes, scale_mv=scale_mv)).signal)
        return np.stack(signals)

    # -- windows and graphs ----------------------------------------------------------------------------------

    def windows(self, tokens: Tokens, mask: np.ndarray | None = None) -> Windows:
        """Cut a record's tokens into the encoder's windows; ``mask`` (n_leads, n_fragments): True = hidden."""
        n_leads, n_fragments = tokens.valid.shape
        n_window = self._window_fragments(n_leads)
        size = min(n_window, n_fragments)
        starts = window_starts(n_fragments, n_window)
        valid = _cut(tokens.valid, starts, size)
        mask = np.zeros_like(valid) if mask is None else _cut(mask, starts, size)
        # Each window's log RMS is the mean over its fragments.
        log_scale = np.repeat(np.log(tokens.scale_mv), tokens.grid.block_fragments, axis=0).T  # (L, >= n_fragments)
        total = (_cut(log_scale, starts, size) * valid).sum(axis=2)
        return Windows(
            starts=starts,
            n_new=n_fragments - n_window * (len(starts) - 1),
            codes=np.maximum(_cut(tokens.codes, starts, size), 0).astype(np.int64),
            valid=valid,
            mask=mask,
            lead_ids=self._lead_ids(tokens.leads, len(starts)),
            log_scale=(total / np.maximum(valid.sum(axis=2), 1)).astype(np.float32),
            scale_known=(valid & ~mask).any(axis=2) & tokens.gain_known,
        )

    def layer(self, windows: Windows, number: int) -> np.ndarray:
        """Return what a layer of the encoder makes of each window, (W, L, P, D); 0 is its input embedding."""
        chosen = int(self.checkpoint.config["embedding_layer"])
        return self._run_encoder(windows, ["embeddings" if number == chosen else f"layer_{number}"])[0]

    def _hidden_nll(self, windows: Windows, *, fast: bool = False) -> np.ndarray:
        """Return -log p of each level of what is hidden, float32 (W, L, P, K); of the rest it may be anything."""
        if not (fast and self._has_fast_graphs):
            return self._run_encoder(windows, ["nll"])[0]
        (last,) = self._run_encoder(windows, ["last"], fast=True)
        nll = np.zeros(windows.codes.shape, dtype=np.float32)
        hidden = windows.mask
        # Each fragment is guessed by itself: the two thirds that are not hidden need no guess.
        asked = {"last": last[hidden][:, None, None], "codes": windows.codes[hidden][:, None, None]}
        if hidden.any():
            nll[hidden] = self._graphs.run(FAST_GRAPHS[1], ["nll"], **asked)[0][:, 0, 0]
        return nll

    def _run_encoder(self, windows: Windows, outputs: list[str], *, fast: bool = False) -> list[np.ndarray]:
        inputs = {name: getattr(windows, name) for name in ENCODER_INPUTS}
        graph = FAST_GRAPHS[0] if fast and self._has_fast_graphs else "encoder.onnx"
        return self._graphs.run(graph, outputs, **inputs)

    @property
    def _has_fast_graphs(self) -> bool:
        return set(FAST_GRAPHS) <= self.checkpoint.config["files"].keys()

    def _encode(
        self, tokens: Tokens, mask: np.ndarray | None, outputs: list[str], *, fast: bool = False
    ) -> list[np.ndarray]:
        """Run the encoder over a whole record; each output (L, n_fragments, ...), what is per window is repeated."""
        windows = self.windows(tokens, mask)
        return [windows.joined(output) for output in self._run_encoder(windows, outputs, fast=fast)]

    def _window_fragments(self, n_leads: int) -> int:
        """Return the window's length: what pre-training used for few leads, and for many."""
        windows = self.checkpoint.config["window_fragments"]
        return int(windows["few"] if n_leads <= 2 else windows["many"])

    def _lead_ids(self, leads: tuple[str, ...], n_blocks: int) -> np.ndarray:
        names = self.checkpoint.lead_names
        ids = [names.index(lead) if lead in names else 0 for lead in leads]  # 0 = unknown
        return np.tile(np.array(ids, dtype=np.int64), (n_blocks, 1))

    def open_graphs(self, heads: tuple[str, ...] = ()) -> None:
        """Begin to open all graphs, and those of some heads, in threads; otherwise each is opened when first used."""
        for name in GRAPHS:
            self._graphs.open(name)
        for name in heads:
            self._head(name)

    @cached_property
    def head_configs(self) -> dict[str, dict[str, Any]]:
        """What each head of the checkpoint says of itself, by name."""
        folder = self.checkpoint.folder
        return {name: head_config(folder, name) for name in head_names(folder)}

    def head(self, name: str) -> Head | None:
        """Return a head of the checkpoint, ready to run; None if it has none of that name."""
        return self._head(name).result()

    def _head(self, name: str) -> "Future[Head | None]":
        if name not in self._heads:
            self._heads[name] = self._head_opener.submit(self._opened_head, name)
        return self._heads[name]

    def _opened_head(self, name: str) -> Head | None:
        head = open_head(self.checkpoint.folder, name)
        if head is not None:
            head.open_graph()
        return head

    # -- what else the checkpoint holds ----------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Return name, version, sha256 and training data."""
        return self.checkpoint.describe()


def window_starts(n_fragments: int, size: int) -> np.ndarray:
    """Return the fragments at which windows begin that lie on the record's clock.

    The last is moved back so that it is as long as the others; only its end is used.
    """
    return np.minimum(np.arange(0, n_fragments, size), max(0, n_fragments - size))


def _cut(on_timeline: np.ndarray, starts: np.ndarray, size: int) -> np.ndarray:
    """Cut what is per fragment into windows: (L, n_fragments, ...) -> (W, L, size, ...)."""
    cut = on_timeline[:, starts[:, None] + np.arange(size)]  # (L, W, size, ...)
    return np.ascontiguousarray(cut.swapaxes(0, 1))


def usable_cores() -> int:
    """Return how many cores this process may use."""
    # In a container, or under taskset, a process may use fewer cores than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load(name_or_path: str | Path = "nano", *, threads: int | None = None) -> Model:
    """Open a model by name or checkpoint folder.

    Parameters
    ----------
    name_or_path : str or Path
        ``"nano"`` comes with the package and needs no network.
    threads : int, optional
        Cores to use; default: all.

    Raises
    ------
    CheckpointError
        There is no such model, or its files are damaged.

    Examples
    --------
    >>> import anyecg
    >>> anyecg.load("nano")  # doctest: +ELLIPSIS
    <anyecg.Model nano ...>
    """
    return Model(open_checkpoint(name_or_path), threads)
