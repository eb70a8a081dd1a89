"""Prepared Record <-> fragments on the lead x time grid; and Tokens, the rhythm codes on that grid.

A recording is cut, on its own clock, into *blocks* (10 s), and every lead of a block into *fragments* (0.5 s).
The tokenizer sees one block at a time. That bounds its receptive field: a day read in pieces that begin on block
borders gives exactly the codes of one pass.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from anyecg.errors import SignalError
from anyecg.record import Record

SMALLEST_SCALE_MV = 1e-3
"""A flatter block than 1 uV RMS is not amplified any further."""

LEAST_RECORDED = 0.5
"""A fragment counts as recorded if at least this share of its samples is."""

Scope = Literal["lead", "record"]
"""What shares one scale in a block: each lead has its own, or all leads of the record have one."""


@dataclass(frozen=True)
class Grid:
    """Sizes of the lead x time grid.

    Parameters
    ----------
    fs_hz : float
    fragment_samples : int
        Samples in a fragment (S).
    block_fragments : int
        Fragments in a block (P).
    scale_per : {"lead", "record"}
        What is scaled to RMS 1 in a block.
    """

    fs_hz: float = 300.0
    fragment_samples: int = 150
    block_fragments: int = 20
    scale_per: Scope = "lead"

    @property
    def fragment_s(self) -> float:
        """Length of a fragment in seconds."""
        return self.fragment_samples / self.fs_hz

    @property
    def block_samples(self) -> int:
        """Samples in a block."""
        return self.fragment_samples * self.block_fragments


@dataclass(frozen=True, eq=False)
class Fragments:
    """A prepared record on the grid: B blocks, L leads, P fragments a block, S samples a fragment.

    Parameters
    ----------
    samples : ndarray of float32, shape (B, L, P, S)
        In units of ``scale_mv``; 0 where not recorded.
    valid : ndarray of bool, shape (B, L, P)
        True = really recorded.
    scale_mv : ndarray of float32, shape (B, L)
        What each lead of each block was divided by, mV: its RMS, or that of all leads.
    """

    samples: np.ndarray
    valid: np.ndarray
    scale_mv: np.ndarray


@dataclass(frozen=True, eq=False)
class Tokens:
    """Rhythm codes of one record, and all that is needed to go back to mV.

    Parameters
    ----------
    codes : ndarray of int32, shape (n_leads, n_fragments, n_levels)
        Indices into the codebook of each level; -1 where nothing was recorded.
    valid : ndarray of bool, shape (n_leads, n_fragments)
        True = really recorded.
    scale_mv : ndarray of float32, shape (n_blocks, n_leads)
        What each lead was divided by in each block of ``grid.block_fragments`` fragments, mV.
    grid : Grid
    codebook_size : int
    leads : tuple of str
    n_samples : int
        Samples of the prepared record; the last fragment may reach past them.
    record_id : str
    gain_known : bool
        False: ``scale_mv`` is in the source's own, uncalibrated unit.
    """

    codes: np.ndarray
    valid: np.ndarray
    scale_mv: np.ndarray
    grid: Grid
    codebook_size: int
    leads: tuple[str, ...]
    n_samples: int
    record_id: str = "record"
    gain_known: bool = True

    @property
    def n_levels(self) -> int:
        """Codes a fragment has: 1 + the number of residual levels."""
        return self.codes.shape[2]

    @property
    def bits_per_second(self) -> float:
        """Bits a second of one lead, the 16-bit scale of each block included."""
        codes = self.n_levels * np.log2(self.codebook_size) / self.grid.fragment_s
        return float(codes + 16 * self.grid.fs_hz / self.grid.block_samples)


def to_fragments(record: Record, grid: Grid) -> Fragments:
    """Cut a prepared record into blocks of fragments, each block (or each lead of it) scaled to RMS 1.

    Raises
    ------
    SignalError
        The record is not at the grid's rate.
    """
    if record.fs != grid.fs_hz:
        raise SignalError(f"{record.id}: {record.fs:g} Hz, expected {grid.fs_hz:g} Hz. Call anyecg.prepare first.")
    n_blocks = -(-record.n_samples // grid.block_samples)
    padded = np.full((record.n_leads, n_blocks * grid.block_samples), np.nan, dtype=np.float32)
    padded[:, : record.n_samples] = record.signal
    shape = (record.n_leads, n_blocks, grid.block_fragments, grid.fragment_samples)
    samples = padded.reshape(shape).transpose(1, 0, 2, 3)  # (B, L, P, S)

    recorded = np.isfinite(samples)
    samples = np.where(recorded, samples, np.float32(0))
    scale_mv = block_scale(np.square(samples).sum(axis=(2, 3)), recorded.sum(axis=(2, 3)), grid.scale_per)  # (B, L)
    valid = recorded.mean(axis=3) >= LEAST_RECORDED  # (B, L, P)
    return Fragments(samples / scale_mv[:, :, None, None], valid, scale_mv)


def block_scale(energy: np.ndarray, n_recorded: np.ndarray, scale_per: Scope) -> np.ndarray:
    """Return what a block is divided by.

    Parameters
    ----------
    energy : ndarray, shape (B, L)
        Sum of the squared samples of each lead, mV^2.
    n_recorded : ndarray of int, shape (B, L)
        Samples that were recorded.
    scale_per : {"lead", "record"}

    Returns
    -------
    ndarray of float32, shape (B, L)
        RMS in mV, over the lead or over all leads; never below `SMALLEST_SCALE_MV`.
    """
    if scale_per == "record":
        energy, n_recorded = (np.broadcast_to(x.sum(axis=1, keepdims=True), x.shape) for x in (energy, n_recorded))
    rms = np.sqrt(energy / np.maximum(n_recorded, 1))
    return np.maximum(rms, SMALLEST_SCALE_MV).astype(np.float32)


def to_signal(samples: np.ndarray, scale_mv: np.ndarray, n_samples: int) -> np.ndarray:
    """Join fragments (B, L, P, S) into float32 mV, shape (L, n_samples)."""
    n_blocks, n_leads, n_fragments, n_in_fragment = samples.shape
    in_mv = samples * scale_mv[:, :, None, None]
    joined = in_mv.transpose(1, 0, 2, 3).reshape(n_leads, n_blocks * n_fragments * n_in_fragment)
    return np.ascontiguousarray(joined[:, :n_samples], dtype=np.float32)


def to_timeline(on_blocks: np.ndarray, n_fragments: int) -> np.ndarray:
    """Lay what is per block, (B, L, P, ...), on the record's one time axis: (L, n_fragments, ...)."""
    n_blocks, n_leads, n_positions = on_blocks.shape[:3]
    moved = np.moveaxis(on_blocks, 0, 1)  # (L, B, P, ...)
    return moved.reshape(n_leads, n_blocks * n_positions, *on_blocks.shape[3:])[:, :n_fragments]


def to_blocks(on_timeline: np.ndarray, block_fragments: int, fill: object) -> np.ndarray:
    """Inverse of `to_timeline`: (L, n_fragments, ...) -> (B, L, P, ...), the last block filled up with ``fill``."""
    n_leads, n_fragments = on_timeline.shape[:2]
    n_blocks = -(-n_fragments // block_fragments)
    shape = (n_leads, n_blocks * block_fragments, *on_timeline.shape[2:])
    padded = np.full(shape, fill, dtype=on_timeline.dtype)
    padded[:, :n_fragments] = on_timeline
    blocks = padded.reshape(n_leads, n_blocks, block_fragments, *on_timeline.shape[2:])
    return np.moveaxis(blocks, 1, 0)
