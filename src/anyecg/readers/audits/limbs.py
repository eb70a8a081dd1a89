"""Limb leads that contradict each other or were interchanged, and leads that are the same."""

from functools import lru_cache
from itertools import combinations

import numpy as np

from anyecg.leads import LIMB_LEADS
from anyecg.readers.audits.levels import Levels
from anyecg.readers.audits.pieces import pieces_of
from anyecg.record import Record

EQUATIONS = {
    "III": {"II": 1.0, "I": -1.0},
    "aVR": {"I": -0.5, "II": -0.5},
    "aVL": {"I": 1.0, "II": -0.5},
    "aVF": {"II": 1.0, "I": -0.5},
}
"""Einthoven's law, and Goldberger's augmented leads, from I and II (AHA/ACC/HRS 2007, part I, doi:10.1161/
CIRCULATIONAHA.106.180200): they hold in every instant, whatever the heart does, if the leads are what they are called.
"""

CONTRADICTS = 0.25
"""Residual of the equations over the leads' own size. Good records have 0.01; rounding and filters of each lead 0.1."""

FITS, CLEARLY = 0.1, 3.0
"""An interchange explains a residual that it brings below 0.1 and to a third."""

SLOPE_S = 0.02
"""The equations are asked of differences over this time: offsets and wander, which devices treat lead by lead, go."""

MOST_COMPARED = 100_000
"""Samples: enough to tell two measured leads apart."""


def limb_contradictions(record: Record) -> list[str]:
    """Return a warning if the limb leads do not fit together, and which interchange would make them fit.

    An electrode on the wrong arm is not seen so: the leads still fit together. See `anyecg.readers.audits.electrodes`.
    """
    names = [name for name in LIMB_LEADS if name in record.leads]
    equations = [name for name in names if name in EQUATIONS and name not in record.derived]
    if not {"I", "II"} <= set(names) or not equations:
        return []
    step = max(1, round(SLOPE_S * record.fs))
    rows = [record.leads.index(name) for name in names]
    products = np.zeros((len(rows), len(rows)))
    for piece in pieces_of(record):
        part = piece[rows]
        found = _products(part[:, step:] - part[:, :-step])
        if np.isnan(found).any():  # gaps
            slopes = part[:, step:] - part[:, :-step]
            found = _products(slopes[:, np.isfinite(slopes).all(axis=0)])
        products += found
    if not (np.diag(products) > 0).all():
        return []  # a lead that is flat or not there is said elsewhere, and contradicts any other
    matrix = np.array([_coefficients(name, names) for name in equations])
    texts, changes = _changes(tuple(names))
    residual, *changed = _residuals(np.concatenate((matrix[None], matrix @ changes)), products)
    fitting = [text for text, left in zip(texts, changed, strict=True) if left < FITS and left * CLEARLY < residual]
    if fitting:
        return [f"limb leads contradict each other; they fit together if {' or '.join(fitting[:4])}"]
    if residual > CONTRADICTS:
        return [
            f"limb leads contradict Einthoven's law (by {residual:.0%}): not recorded at the same time, of different "
            "gains, or wrongly named"
        ]
    return []


def _coefficients(equation: str, names: list[str]) -> list[float]:
    """Return what the leads are multiplied by so that the sum is 0."""
    known = {equation: -1.0, **EQUATIONS[equation]}
    return [known.get(name, 0.0) for name in names]


def _products(slopes: np.ndarray) -> np.ndarray:
    """Return the sums of products of every two leads, shape (n_leads, n_leads)."""
    # With itself an array is multiplied by a routine that is several times slower for a few long rows.
    return (slopes @ slopes.copy().T).astype(np.float64)


def _residuals(matrices: np.ndarray, products: np.ndarray) -> list[float]:
    """Return the equations' root mean square residual over that of the leads, for each matrix of equations.

    A matrix is (n_equations, n_leads). What may have happened to the leads keeps their own size, the trace.
    """
    left = ((matrices @ products) * matrices).sum(axis=(1, 2))
    return [float(value) for value in np.sqrt(np.maximum(left, 0.0) / np.trace(products))]


@lru_cache(maxsize=64)
def _changes(names: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """Return what may have happened to the leads: in words, and as matrices (n, n_leads, n_leads) that undo it."""
    n = len(names)
    texts, matrices = [], []
    for a, b in combinations(range(n), 2):
        order = np.arange(n)
        order[[a, b]] = b, a
        texts.append(f"{names[a]} and {names[b]} are interchanged")
        matrices.append(np.eye(n)[order])
    for a in range(n):
        signs = np.ones(n)
        signs[a] = -1
        texts.append(f"{names[a]} is inverted")
        matrices.append(np.diag(signs))
    return texts, np.array(matrices)


def identical_leads(record: Record, levels: Levels) -> list[str]:
    """Return a warning for leads that are the same, sample for sample, and not flat."""
    seen: dict[tuple[float, float], list[int]] = {}
    same: list[str] = []
    for row, (low, high) in enumerate(zip(levels.low.tolist(), levels.high.tolist(), strict=True)):
        if not low < high:
            continue
        # Few leads share both extremes; those are compared, a day-long one in its first part.
        alike = seen.setdefault((low, high), [])
        if not alike:
            alike.append(row)
            continue
        part = record.signal[row, :MOST_COMPARED]
        twin = next((r for r in alike if np.array_equal(part, record.signal[r, :MOST_COMPARED], equal_nan=True)), None)
        if twin is None:
            alike.append(row)
        else:
            same.append(f"{record.leads[row]} = {record.leads[twin]}")
    return [f"leads are identical: {', '.join(same)}"] if same else []
