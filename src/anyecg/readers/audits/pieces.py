"""Bounded parts of a record, however long it is: what an audit looks at."""

import numpy as np

from anyecg.ranks import median
from anyecg.record import Record

PIECE_S = 20.0
"""Length of a piece: five beats at any rate above 15 a minute."""

MAX_PIECES = 4
"""These, spread over the record, tell a wrong unit, rate or lead; a day has 4,320."""

_MOST_LEADS = 3


def pieces_of(record: Record) -> list[np.ndarray]:
    """Return views of up to four pieces of twenty seconds, evenly spread; a shorter record is one piece.

    Returns
    -------
    list of ndarray of float32, shape (n_leads, n_piece)
        mV, NaN where not recorded.
    """
    n_piece = max(1, round(PIECE_S * record.fs))
    n_pieces = min(MAX_PIECES, record.n_samples // n_piece)
    if n_pieces <= 1:
        return [record.signal[:, :n_piece]]
    starts = np.linspace(0, record.n_samples - n_piece, n_pieces).astype(np.int64)
    return [record.signal[:, start : start + n_piece] for start in starts]


def most_recorded(record: Record, rows: list[int]) -> np.ndarray:
    """Return some leads of the piece with the fewest gaps in all leads.

    Gaps are filled with the lead's median, so that they make no edge.

    Returns
    -------
    ndarray of float32, shape (n_rows, n_piece)
        mV; leads without a sample in it are 0.
    """
    pieces = pieces_of(record)
    if np.isfinite(pieces[0].min()) and np.isfinite(pieces[0].max()):  # NaN if one sample is: fast
        return pieces[0][rows]
    piece = max(pieces, key=lambda part: np.count_nonzero(np.isfinite(part)))[rows]
    recorded = np.isfinite(piece)
    if recorded.all():
        return piece
    filled = np.where(recorded, piece, np.float32(0))
    for row, known in zip(filled, recorded, strict=True):
        if known.any():
            row[~known] = median(row[known])
    return filled


def telling_leads(leads: tuple[str, ...]) -> list[int]:
    """Return up to three rows that see the heart from different sides: II, V2 and V5 where they are."""
    rows = [leads.index(name) for name in ("II", "V2", "V5") if name in leads]
    return (rows + [row for row in range(len(leads)) if row not in rows])[:_MOST_LEADS]
