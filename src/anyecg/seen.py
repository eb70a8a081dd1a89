"""One piece of a recording -> what is kept of it: what the networks, the quality and the beats say.

Small arrays that are laid end to end; `anyecg.stream` makes a Result of them.
"""

from concurrent.futures import Future
from dataclasses import dataclass, fields

import numpy as np

from anyecg.beats import Detected
from anyecg.engine import Embedding, Model
from anyecg.pieces import Piece
from anyecg.quality import problem_bits
from anyecg.record import Record, runs_of
from anyecg.result import Quality, Rhythm
from anyecg.tasks.anomaly import References, anomaly_map, distance_levels, score_windows, unusual_segments
from anyecg.tasks.arrhythmia import window_logits
from anyecg.tasks.fibrillation import vf_windows
from anyecg.tasks.st import st_levels
from anyecg.tasks.window_measures import Measured
from anyecg.tokens import Tokens

FULL_PIECES = 10
"""So many pieces are looked at in full. Of each later one, surprise is asked in the window whose embeddings are most
unusual, and one window has an anomaly score: four passes of the encoder become one and a half. And these passes are
fast (`anyecg.Model.embed`); codes are exact everywhere."""


@dataclass(frozen=True, eq=False)
class Looked:
    """What the networks make of one piece; ``levels`` is the map of `anyecg.tasks.anomaly.anomaly_map`."""

    tokens: Tokens
    embedding: Embedding
    surprise: np.ndarray
    levels: np.ndarray


@dataclass(frozen=True, eq=False)
class Waiting:
    """One piece whose beats are not found yet: its networks may still run."""

    piece: Piece
    quality: Quality
    off_s: np.ndarray
    looked: "Future[Looked]"


@dataclass(frozen=True, eq=False)
class Seen:
    """What is kept of a piece, or of several: arrays whose first axis is laid end to end.

    P pieces of L leads, F fragments, B blocks, W windows of the encoder, n of the rest; times from the recording's
    start.

    Parameters
    ----------
    end_s : (P,)
    n_beats : int (P,)
    r_peaks_s : (n,)
    gaps_s : (n, 2)
        Stretches in which no beat could be found.
    unusable_s : (n, 2)
    beat_lead : int (P,)
        The lead that gave the times of the beats; -1 without any.
    scores, problems : (P, L)
        Quality of each lead, and its problems as bits.
    usable : bool (P,)
    off_s : (P, L)
        Seconds that a lead was off.
    st_mv : (P, L)
    vf : (n,)
        As `anyecg.tasks.fibrillation.vf_windows` returns it.
    n_samples : int (P,)
        Of the prepared signal.
    codes : int16 (F, L, K)
    scale_mv : (B, L)
    surprise : (F, L)
    pooled : (P, D)
        Sum of the embeddings of ``n_pooled`` (P,) fragments.
    logits : (W, labels of all record heads)
    windows : (n, 3)
        Anomaly score, percentile, and the number of windows it stands for.
    segments : (n, 4)
        Start and end of a stretch that stands out, lead, score.
    """

    end_s: np.ndarray
    n_beats: np.ndarray
    r_peaks_s: np.ndarray
    gaps_s: np.ndarray
    unusable_s: np.ndarray
    beat_lead: np.ndarray
    scores: np.ndarray
    problems: np.ndarray
    usable: np.ndarray
    off_s: np.ndarray
    st_mv: np.ndarray
    vf: np.ndarray
    n_samples: np.ndarray
    codes: np.ndarray
    scale_mv: np.ndarray
    surprise: np.ndarray
    pooled: np.ndarray
    n_pooled: np.ndarray
    logits: np.ndarray
    windows: np.ndarray
    segments: np.ndarray


def end_to_end(parts: list[Seen]) -> Seen:
    """Lay what was kept of consecutive stretches end to end."""
    return Seen(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Seen)})


def look(model: Model, piece: Piece, reference: References) -> Looked:
    """Look at a piece through the networks."""
    prepared = piece.prepared
    tokens = model.tokenize(prepared, allow_nothing=True)
    later = piece.number >= FULL_PIECES
    embedding = model.embed(tokens, fast=later)
    distances = distance_levels(embedding, reference)
    asked = _most_unusual(model, tokens, distances) if later and tokens.valid.any() else None
    surprise = model.surprise(tokens, only=asked, fast=later)
    return Looked(tokens, embedding, surprise, anomaly_map(embedding, surprise, reference, distances))


def join(model: Model, waiting: Waiting, found: Detected, reference: References) -> Seen:
    """Join what the networks, the quality and the beats of a piece (in seconds from its start) say."""
    piece, quality, looked = waiting.piece, waiting.quality, waiting.looked.result()
    prepared, tokens, embedding, surprise = piece.prepared, looked.tokens, looked.embedding, looked.surprise
    full = piece.number < FULL_PIECES
    rhythm = Rhythm(found.r_peaks_s, lead=found.lead)
    judged = [name for name, lead in quality.leads.items() if lead.score > 0] if quality.usable else []
    measured, only = Measured(prepared, rhythm), None if full else piece.number
    windows = score_windows(embedding, judged, reference, measured, only)
    n_windows = max(1, round(tokens.valid.shape[1] / reference.known.window_fragments))
    segments = unusual_segments(looked.levels, embedding, set(judged), reference)
    logits = window_logits(model, tokens, rhythm, quality, embedding, measured, only)
    there = np.isfinite(embedding.per_fragment[..., 0])
    at_s = piece.start_s
    return Seen(
        end_s=np.array([piece.end_s]),
        n_beats=np.array([len(found.r_peaks_s)]),
        r_peaks_s=found.r_peaks_s + at_s,
        gaps_s=found.gaps_s + at_s,
        unusable_s=_unusable(prepared, quality) + at_s,
        beat_lead=np.array([prepared.leads.index(found.lead) if found.lead else -1]),
        scores=np.array([[quality.leads[name].score for name in prepared.leads]]),
        problems=np.array([[problem_bits(quality.leads[name]) for name in prepared.leads]]),
        usable=np.array([quality.usable]),
        off_s=waiting.off_s[None],
        st_mv=st_levels(prepared, found.r_peaks_s)[None],
        vf=vf_windows(prepared),
        n_samples=np.array([prepared.n_samples]),
        codes=tokens.codes.transpose(1, 0, 2).astype(np.int16),
        scale_mv=tokens.scale_mv,
        surprise=np.ascontiguousarray(surprise.T),
        pooled=np.where(there[..., None], embedding.per_fragment, 0).sum(axis=(0, 1), dtype=np.float64)[None],
        n_pooled=np.array([there.sum()]),
        logits=np.concatenate(list(logits.values()), axis=1) if logits else np.empty((0, 0), dtype=np.float32),
        windows=np.column_stack([windows, np.full(len(windows), 1 if full else n_windows)]),
        segments=np.array(
            [(a.start_s + at_s, a.end_s + at_s, prepared.leads.index(a.lead or ""), a.score) for a in segments]
        ).reshape(-1, 4),
    )


def _most_unusual(model: Model, tokens: Tokens, levels: np.ndarray) -> np.ndarray:
    """Return the number of the window whose fragments' levels (L, F) are highest on average."""
    windows = model.windows(tokens)
    cut = windows.cut(np.nan_to_num(levels))
    return np.array([int(cut.mean(axis=(1, 2)).argmax())])


def _unusable(prepared: Record, quality: Quality) -> np.ndarray:
    """Return the stretches (n, 2) of a piece, in seconds, without any usable lead."""
    if not quality.usable:
        return np.array([[0.0, prepared.duration_s]])
    gaps = runs_of(~np.isfinite(prepared.signal).any(axis=0))
    return np.array(gaps, dtype=np.float64).reshape(-1, 2) / prepared.fs
