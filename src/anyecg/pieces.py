"""Samples as they come -> pieces of one minute on the recording's clock, each prepared with what surrounds it.

A long recording is analysed piece by piece. Where pieces begin depends on the recording's clock alone, and what a piece
is prepared with reaches `CONTEXT_S` to both sides, so that nothing depends on the chunks in which the samples came: a
file in one go, ten minutes at a time, or sample by sample from a device.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor

import numpy as np

from anyecg.errors import SignalError
from anyecg.record import Record
from anyecg.signals import Preparation, find_leads_off, leads_off_words, prepare, resampled_length

PIECE_S = 60.0
"""A whole number of the tokenizer's blocks and of the encoder's windows: codes and embeddings are those of one pass."""

CONTEXT_S = 10.0
"""What is prepared besides on both sides: the band-pass reaches 2 s, a beat detector has learned after a few beats."""

ALIGN_S = 1.0
"""Within so much more, the context begins where a sample of the source and one of the prepared signal coincide best."""


@dataclass(frozen=True, eq=False)
class Piece:
    """One piece of a recording.

    Parameters
    ----------
    number : int
    start_s : float
        Seconds from the start of the recording.
    raw : Record
        As read; of the piece alone.
    around : Record
        Prepared, with its context; all NaN if nothing was recorded.
    first, last : int
        The piece's own samples in ``around``.
    """

    number: int
    start_s: float
    raw: Record
    around: Record
    first: int
    last: int

    @property
    def prepared(self) -> Record:
        """The piece alone, prepared."""
        return self.around.with_(signal=self.around.signal[:, self.first : self.last])

    @property
    def context_s(self) -> float:
        """Seconds of ``around`` before the piece begins."""
        return self.first / self.around.fs

    @property
    def end_s(self) -> float:
        """Seconds from the start of the recording to the end of the piece."""
        return self.start_s + (self.last - self.first) / self.around.fs


class Cutter:
    """Cuts a recording into pieces while its samples arrive.

    The last piece takes what is left: it is one to two pieces long, or as short as the recording is.

    Parameters
    ----------
    like : Record
        Rate, leads and everything else but the samples.
    to : Preparation
    first_piece : int
        Where to begin, in a recording that was analysed up to there; `feed` it from `Cutter.needed_from` on.
    """

    def __init__(self, like: Record, to: Preparation, first_piece: int = 0) -> None:
        self.like = like.with_(signal=like.signal[:, :0], annotations=(), warnings=())
        self.to = to
        self.number = first_piece
        self._begin = self.needed_from  # index, in the recording, of the first sample that is kept
        self._kept: list[np.ndarray] = []
        self.n_samples = self._begin

    @property
    def needed_from(self) -> int:
        """The first sample of the recording that the next piece needs."""
        return self._context_start(self.number * PIECE_S)

    @property
    def duration_s(self) -> float:
        """Seconds of the recording that have arrived."""
        return self.n_samples / self.like.fs

    def feed(self, samples: np.ndarray) -> Iterator[Piece]:
        """Take samples (n_leads, n) in mV, and yield the pieces that are complete now.

        Raises
        ------
        SignalError
            Not one row a lead.
        """
        if samples.ndim != 2 or len(samples) != self.like.n_leads:
            raise SignalError(
                f"{self.like.id}: samples of shape {samples.shape}, expected ({self.like.n_leads}, n). Give each lead "
                "a row."
            )
        self._kept.append(np.asarray(samples, dtype=np.float32))
        self.n_samples += samples.shape[1]
        # A piece is complete when one more, at least, comes behind it.
        while self.n_samples >= ceil((self.number + 2) * PIECE_S * self.like.fs):
            piece = self._cut((self.number + 1) * PIECE_S)
            self.number += 1
            self._forget(self.needed_from)
            yield piece

    def rest(self) -> Piece:
        """Return what has arrived behind the last complete piece, as if the recording ended here.

        Raises
        ------
        SignalError
            The whole recording is shorter than can be prepared, or nothing of it is recorded.
        """
        return self._cut(None)

    def _context_start(self, start_s: float) -> int:
        """Return the first sample of a piece's context, where the two rates coincide as well as they can."""
        fs = self.like.fs
        latest = floor((start_s - CONTEXT_S) * fs)
        if latest <= 0:
            return 0
        indices = np.arange(max(latest - ceil(ALIGN_S * fs), 0), latest + 1)
        targets = indices * self.to.fs_hz / fs
        return int(indices[np.argmin(np.round(np.abs(targets - np.round(targets)), 6))])

    def _cut(self, end_s: float | None) -> Piece:
        fs, start_s = self.like.fs, self.number * PIECE_S
        here = self._joined()
        begin = self._context_start(start_s)
        until = self.n_samples if end_s is None else min(round((end_s + CONTEXT_S) * fs), self.n_samples)
        own = slice(round(start_s * fs), self.n_samples if end_s is None else round(end_s * fs))
        raw = self._record(here[:, own.start - self._begin : own.stop - self._begin])
        with_context = self._record(here[:, begin - self._begin : until - self._begin])
        around = self._prepared(with_context, alone=end_s is None and self.number == 0)
        before = round(begin * self.to.fs_hz / fs)
        first = round(start_s * self.to.fs_hz) - before
        last = around.n_samples if end_s is None else round(end_s * self.to.fs_hz) - before
        return Piece(self.number, start_s, raw, around, first, last)

    def _prepared(self, record: Record, *, alone: bool) -> Record:
        if record.fs == self.to.fs_hz and record.source_fs is not None:  # as in Model.prepare
            return record
        try:
            return prepare(record, self.to)
        except SignalError:
            if alone:  # the whole recording is so
                raise
            n = resampled_length(record.n_samples, record.fs, self.to.fs_hz)
            nothing = np.full((record.n_leads, n), np.nan, dtype=np.float32)
            return record.with_(signal=nothing, fs=self.to.fs_hz, source_fs=record.source_fs or record.fs)

    def _joined(self) -> np.ndarray:
        if len(self._kept) != 1:
            empty = np.empty((self.like.n_leads, 0), dtype=np.float32)
            self._kept = [np.concatenate([empty, *self._kept], axis=1)]
        return self._kept[0]

    def _forget(self, before: int) -> None:
        """Let go of what no later piece needs."""
        kept = self._joined()[:, before - self._begin :]
        self._kept, self._begin = [kept], before

    def _record(self, samples: np.ndarray) -> Record:
        return self.like.with_(signal=samples)


def prepare_in_pieces(record: Record, to: Preparation) -> Record:
    """Prepare a recording of any length as a stream of its samples is prepared.

    Parameters
    ----------
    record : Record
    to : Preparation

    Returns
    -------
    Record
        As `anyecg.prepare` returns it; of a recording shorter than two pieces it is the same.

    Raises
    ------
    SignalError
        Nothing is recorded, or the record is shorter than half a second.
    """
    if record.duration_s < 2 * PIECE_S:
        return prepare(record, to)
    cutter = Cutter(record, to)
    pieces = [*(piece.prepared for piece in cutter.feed(record.signal)), cutter.rest().prepared]
    signal = np.concatenate([piece.signal for piece in pieces], axis=1)
    if not np.isfinite(signal).any():
        raise SignalError(f"{record.id}: no lead has a recorded sample, expected at least one. Check the source file.")
    whole = record.with_(signal=signal, fs=to.fs_hz, source_fs=record.source_fs or record.fs)
    return whole.with_warning(*leads_off_words(record.leads, find_leads_off(record).sum(axis=1) / record.fs))
