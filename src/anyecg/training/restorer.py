"""Fit the head that restores leads: ``anyecg train-heads FOLDER restorer``. Closed form but for a mixture's few rounds.

Training records give lagged covariances; a mixture of them is fitted by expectation-maximisation (Dempster 1977), each
record one tempered Wishart observation. Validation records say how wide the band must be, and how much the mean over
drawn codes is to weigh, for each number of given leads.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from anyecg.engine import Model
from anyecg.heads import Head, open_head, write_head
from anyecg.leads import LIMB_LEADS, PRECORDIAL_LEADS, STANDARD_LEADS
from anyecg.record import Record
from anyecg.tasks.lead_regression import FLOOR, INDEPENDENT, N_LAGS, Mixture, lagged_covariance, regress
from anyecg.tasks.restore import HEAD, restore
from anyecg.tokens import Grid
from anyecg.training.datasets import SUPERCLASS_DATABASE, TWELVE_LEAD_DATABASES, Corpus, prepare_databases

N_COMPONENTS, ROUNDS = 256, 8
TEMPER = 30.0
"""Independent samples a training record counts as when it is given to components."""

COVERED = 0.90
"""Share of samples that the 5-95 % band is to hold."""

MOST_BLOCKS = 2
"""Ten-second blocks taken of one record."""

N_CODES, DRAWS = 30, 16
"""Validation records on which codes are drawn, and how often."""

GIVEN = {
    1: (("I",), ("II",)),
    2: (LIMB_LEADS,),
    3: ((*LIMB_LEADS, "V2"), (*LIMB_LEADS, "V5")),
    5: ((*LIMB_LEADS, "V1", "V3", "V5"),),
    7: tuple(tuple(name for name in STANDARD_LEADS if name != missing) for missing in PRECORDIAL_LEADS),
}
"""By the number of independent leads, what validation records are restored from; in between it is interpolated."""


def each_block(corpus: Corpus, grid: Grid) -> Iterator[Record]:
    """Yield the blocks of clean 12-lead records: 5 to 10 s, all recorded, no lead flat; `MOST_BLOCKS` of a record."""
    for entry in corpus.entries:
        if not entry.clean or tuple(entry.leads) != STANDARD_LEADS:
            continue
        whole = corpus.record(entry, grid.fs_hz)
        for start in range(0, min(whole.n_samples, MOST_BLOCKS * grid.block_samples), grid.block_samples):
            block = whole.with_(signal=whole.signal[:, start : start + grid.block_samples])
            if block.n_samples < grid.block_samples // 2 or not np.isfinite(block.signal).all():
                continue
            if np.square(block.signal).mean(axis=1).min() >= 1e-6:  # a lead of under 1 uV RMS is flat
                yield block


def fit_mixture(lagged: np.ndarray, n_components: int = N_COMPONENTS, seed: int = 0) -> Mixture:
    """Fit a mixture to the lagged covariances of records, (N, N_LAGS, 8, 8), each of mean variance 1 over 12 leads."""
    rng = np.random.default_rng(seed)
    n_leads = lagged.shape[-1]
    here = lagged[:, 0].astype(np.float64)
    here = here * n_leads / np.trace(here, axis1=1, axis2=2)[:, None, None]
    centre = here[rng.choice(len(here), n_components, replace=False)]
    share = np.full(n_components, 1 / n_components)
    for _ in range(ROUNDS):
        kept = 0.9 * centre + 0.1 * here.mean(axis=0) + FLOOR * np.eye(n_leads)
        fit = here.reshape(len(here), -1) @ np.linalg.inv(kept).reshape(n_components, -1).T
        log_p = np.log(share) - 0.5 * TEMPER * (np.linalg.slogdet(kept)[1] + fit)  # (N, K)
        p = np.exp(log_p - log_p.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        share = p.mean(axis=0) + 1e-6
        share /= share.sum()
        of_records = (p / np.maximum(p.sum(axis=0), 1e-9)).T
        centre = np.tensordot(of_records, here, 1)
    return Mixture(share, np.tensordot(of_records, lagged, 1).astype(np.float32))


def lagged_of(blocks: Iterator[Record]) -> np.ndarray:
    """Return the lagged covariances of blocks, float32 (N, N_LAGS, 8, 8), each scaled to RMS 1 over 12 leads."""
    found = []
    for block in blocks:
        scale = np.square(block.signal, dtype=np.float64).mean()
        found.append((lagged_covariance(block.pick(INDEPENDENT).signal, N_LAGS) / scale).astype(np.float32))
    return np.stack(found)


def band_factors(mixture: Mixture, blocks: list[Record]) -> list[float]:
    """Return, for 1, 2, ... 8 independent leads, how many spreads to each side hold `COVERED` of precordial samples."""
    known = {}
    for count, sets in GIVEN.items():
        ratios = []
        for number, block in enumerate(blocks):
            given = sets[number % len(sets)]
            hidden = np.array([name not in given and name in PRECORDIAL_LEADS for name in STANDARD_LEADS])
            unseen = np.array([name not in given for name in STANDARD_LEADS])
            found = regress(mixture, np.where(unseen[:, None], np.float32(np.nan), block.signal))
            error = np.abs(found.mean - block.signal) / found.spread
            ratios.append(error[hidden, ::10].ravel())
        known[count] = np.quantile(np.concatenate(ratios), COVERED)
    return [round(float(x), 4) for x in np.interp(range(1, 9), list(known), list(known.values()))]


def codes_share(truth: np.ndarray, regressed: np.ndarray, drawn: np.ndarray) -> float:
    """Return the share of the drawn mean with which a mixture of both is nearest to the truth; each (n, n_samples).

    Each row counts alike, whatever its amplitude.
    """
    power = np.square(truth, dtype=np.float64).mean(axis=1, keepdims=True)
    apart = drawn - regressed
    best = ((truth - regressed) * apart / power).sum() / max(1e-12, (np.square(apart) / power).sum())
    return float(np.clip(best, 0, 1))


def few_leads(model: Model, mixture: Mixture, blocks: list[Record]) -> tuple[list[float], list[float]]:
    """Return for one and for two independent leads the share of the drawn mean, and the mixed mean's band factor."""
    shares, factors = [], []
    for given in (("I",), ("I", "II")):
        rows: dict[str, list[np.ndarray]] = {"truth": [], "regressed": [], "drawn": [], "spread": []}
        for block in blocks:
            drawn = restore(block.pick(given), model, PRECORDIAL_LEADS, draws=DRAWS).record.pick(PRECORDIAL_LEADS)
            known = LIMB_LEADS if len(given) == 2 else given
            unseen = np.array([name not in known for name in STANDARD_LEADS])
            found = regress(mixture, np.where(unseen[:, None], np.float32(np.nan), block.signal))
            rows["truth"].append(block.pick(PRECORDIAL_LEADS).signal)
            rows["regressed"].append(found.mean[len(LIMB_LEADS) :])
            rows["spread"].append(found.spread[len(LIMB_LEADS) :])
            rows["drawn"].append(drawn.signal)
        truth, regressed, drawn_mv, spread = (
            np.concatenate(rows[k]) for k in ("truth", "regressed", "drawn", "spread")
        )
        share = codes_share(truth, regressed, drawn_mv)
        mixed = (1 - share) * regressed + share * drawn_mv
        shares.append(round(share, 3))
        factors.append(round(float(np.quantile(np.abs(truth - mixed) / spread, COVERED)), 4))
    return shares, factors


def graph_of(mixture: Mixture) -> bytes:
    """Return an ONNX graph: shares (n, K) -> mixed covariances (n, N_LAGS, 8, 8); weights are float16."""
    from onnx import TensorProto, helper, numpy_helper

    n_components, *shape = mixture.lagged.shape
    flat = mixture.lagged.reshape(n_components, -1).astype(np.float16)
    constants = [
        numpy_helper.from_array(flat, "lagged.half"),
        numpy_helper.from_array(np.array([-1, *shape], dtype=np.int64), "shape"),
    ]
    nodes = [
        helper.make_node("Cast", ["lagged.half"], ["lagged"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["shares", "lagged"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["covariance"]),
    ]
    inputs = [helper.make_tensor_value_info("shares", TensorProto.FLOAT, ["n", n_components])]
    outputs = [helper.make_tensor_value_info("covariance", TensorProto.FLOAT, ["n", *shape])]
    graph = helper.make_graph(nodes, HEAD, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def fit_restorer(
    model: Model, data: Path, splits_csv: Path, out: Path, progress: Callable[[str], None] = print
) -> Head:
    """Fit on split train, calibrate on split val, write the head into a checkpoint folder.

    Parameters
    ----------
    model : Model
        Without this head: its drawn codes are compared with regression.
    data : Path
        The restored databases.
    splits_csv : Path
    out : Path
        The checkpoint folder to write into.
    """
    folder = prepare_databases(data, splits_csv, model.checkpoint.preparation, progress)
    grid = model.checkpoint.grid
    lagged = lagged_of(each_block(Corpus(folder, "train", TWELVE_LEAD_DATABASES), grid))
    progress(f"{len(lagged)} training blocks")
    mixture = fit_mixture(lagged)
    mixture = Mixture(mixture.share, mixture.lagged.astype(np.float16).astype(np.float32))  # as it is stored
    val = list(each_block(Corpus(folder, "val", (SUPERCLASS_DATABASE,)), grid))
    factors = band_factors(mixture, val[::2])
    shares, factors[:2] = few_leads(model, mixture, val[:: len(val) // N_CODES][:N_CODES])
    progress(f"band factors {factors}, shares of drawn codes {shares}")
    config: dict[str, Any] = {
        "kind": "restoration",
        "version": "1",
        "labels": [],
        "shares": np.round(mixture.share, 8).tolist(),
        "band_factors": factors,
        "codes_shares": [*shares, *[0.0] * 6],
        "trained_on": list(TWELVE_LEAD_DATABASES),
        "n_train_blocks": len(lagged),
        "n_val_blocks": len(val[::2]),
        "n_val_blocks_codes": N_CODES,
    }
    write_head(out, HEAD, config, graph_of(mixture))
    head = open_head(out, HEAD)
    assert head is not None
    return head
