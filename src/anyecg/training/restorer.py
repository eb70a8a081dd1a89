"""Fit the head that restores leads: ``anyecg train-heads FOLDER restorer``.

Training records give lagged covariances; a mixture of them is fitted by expectation-maximisation (Dempster 1977), each
record one tempered Wishart observation. A network learns to correct what the mixture regresses
(`anyecg.training.restoring`). Validation records say, for each number of given leads, how much of the corrected guess
to take and how wide the band must be.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch

from anyecg.engine import Model
from anyecg.heads import Head, open_head, write_head
from anyecg.leads import LIMB_LEADS, PRECORDIAL_LEADS, STANDARD_LEADS
from anyecg.metrics import pearson_r
from anyecg.models.export import OPSET, quietly_exported, round_to_half
from anyecg.models.unet import Corrector, UNet
from anyecg.record import Record
from anyecg.tasks.lead_correction import WINDOW_SAMPLES, Network, correct
from anyecg.tasks.lead_regression import FLOOR, INDEPENDENT, N_LAGS, Mixture, lagged_covariance, regress
from anyecg.tasks.restore import HEAD
from anyecg.tokens import Grid
from anyecg.training.datasets import TWELVE_LEAD_DATABASES, Corpus, Entry, prepare_databases
from anyecg.training.restoring import ALONE, WITH_GUESS, Blocks, fit_alone, fit_corrector

N_COMPONENTS, ROUNDS = 256, 8
TEMPER = 30.0
"""Independent samples a training record counts as when it is given to components."""

COVERED = 0.90
"""Share of samples that the 5-95 % band is to hold."""

MOST_BLOCKS = 2
"""Ten-second blocks taken of one record."""

N_FOLDS = 4
"""Of training patients: the guess that the network is shown comes from a mixture of the other folds."""

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the network's guess, to choose from."""

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
    return (block for _, block in _each_block(corpus, grid))


def _each_block(corpus: Corpus, grid: Grid) -> Iterator[tuple[Entry, Record]]:
    for entry in corpus.entries:
        if not entry.clean or tuple(entry.leads) != STANDARD_LEADS:
            continue
        whole = corpus.record(entry, grid.fs_hz)
        for start in range(0, min(whole.n_samples, MOST_BLOCKS * grid.block_samples), grid.block_samples):
            block = whole.with_(signal=whole.signal[:, start : start + grid.block_samples])
            if block.n_samples < grid.block_samples // 2 or not np.isfinite(block.signal).all():
                continue
            if np.square(block.signal).mean(axis=1).min() >= 1e-6:  # a lead of under 1 uV RMS is flat
                yield entry, block


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


def blocks_of(corpus: Corpus, grid: Grid) -> tuple[Blocks, np.ndarray]:
    """Return what the network learns from, and the blocks' lagged covariances."""
    signals, folds, lagged = [], [], []
    for entry, block in _each_block(corpus, grid):
        room = ((0, 0), (0, grid.block_samples - block.n_samples))
        signals.append(np.pad(block.signal, room, constant_values=np.nan).astype(np.float16))
        folds.append(crc32(f"{entry.database} {entry.patient}".encode()) % N_FOLDS)
        lagged.append(lagged_of(iter([block]))[0])
    fold, found = np.array(folds), np.stack(lagged)
    mixtures = [fit_mixture(found[fold != number]) for number in range(N_FOLDS)]
    return Blocks(np.stack(signals), fold, mixtures), found


def train_network(blocks: Blocks, work: Path) -> Corrector:
    """Train the network that corrects; what is done is read from ``work``, and goes on from there.

    Other blocks have another folder there: a network that learned from other records is not taken for this one.
    """
    place = work / f"{crc32(blocks.signal.tobytes()):08x}"
    torch.manual_seed(0)
    plain = fit_alone(UNet(), blocks.signal, place / "alone", ALONE)
    return fit_corrector(Corrector().begin_from(plain), blocks, place / "with_guess", WITH_GUESS)


def calibrate(mixture: Mixture, network: Network, blocks: list[Record]) -> dict[str, list[float]]:
    """Choose, for 1, 2, ... 8 independent leads, the network's share by r, and the band by what it is to hold.

    Returns
    -------
    dict
        ``network_shares``, and ``band_factors``: how many expected errors to each side hold `COVERED` of the samples.
        Precordial leads only.
    """
    shares, factors = {}, {}
    for count, sets in GIVEN.items():
        found = [_both(mixture, network, block, sets[number % len(sets)]) for number, block in enumerate(blocks)]
        r = {share: np.nanmean([_r(guess, share) for guess in found]) for share in SHARES}
        shares[count] = max(SHARES, key=lambda share: r[share])
        ratios = [np.abs(g["truth"] - _mixed(g, shares[count])) / g["spread"] for g in found]
        factors[count] = np.quantile(np.concatenate([x[:, ::10].ravel() for x in ratios]), COVERED)
    every = range(1, len(INDEPENDENT) + 1)
    chosen = {"network_shares": shares, "band_factors": factors}
    return {
        key: [round(float(x), 4) for x in np.interp(every, list(of), list(of.values()))] for key, of in chosen.items()
    }


def _both(mixture: Mixture, network: Network, block: Record, given: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return of the hidden precordial leads the truth, both guesses and the expected error, each (n, n_samples)."""
    unseen = np.array([name not in given for name in STANDARD_LEADS])
    signal = np.where(unseen[:, None], np.float32(np.nan), block.signal)
    regressed = regress(mixture, signal)
    corrected = correct(network, signal, regressed, np.ones(len(INDEPENDENT) + 1))
    rows = [row for row, name in enumerate(STANDARD_LEADS) if unseen[row] and name in PRECORDIAL_LEADS]
    return {
        **{"truth": block.signal[rows], "regressed": regressed.mean[rows]},
        **{"corrected": corrected.mean[rows], "spread": corrected.spread[rows]},
    }


def _mixed(guess: dict[str, np.ndarray], share: float) -> np.ndarray:
    return guess["regressed"] + np.float32(share) * (guess["corrected"] - guess["regressed"])


def _r(guess: dict[str, np.ndarray], share: float) -> float:
    return float(np.nanmean([pearson_r(x, y) for x, y in zip(guess["truth"], _mixed(guess, share), strict=True)]))


def graph_of(mixture: Mixture, network: Corrector | None = None) -> bytes:
    """Return an ONNX graph: shares (n, K) -> mixed covariances (n, N_LAGS, 8, 8); weights are float16.

    With a network it has a second branch, leads (1, 36, WINDOW_SAMPLES) -> restored (1, 24, WINDOW_SAMPLES).
    """
    from onnx import TensorProto, helper, numpy_helper

    n_components, *shape = mixture.lagged.shape
    flat = mixture.lagged.reshape(n_components, -1).astype(np.float16)
    constants = [
        numpy_helper.from_array(flat, "mixture.lagged.half"),
        numpy_helper.from_array(np.array([-1, *shape], dtype=np.int64), "mixture.shape"),
    ]
    nodes = [
        helper.make_node("Cast", ["mixture.lagged.half"], ["mixture.lagged"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["shares", "mixture.lagged"], ["mixture.flat"]),
        helper.make_node("Reshape", ["mixture.flat", "mixture.shape"], ["covariance"]),
    ]
    inputs = [helper.make_tensor_value_info("shares", TensorProto.FLOAT, ["n", n_components])]
    outputs = [helper.make_tensor_value_info("covariance", TensorProto.FLOAT, ["n", *shape])]
    if network is not None:
        branch = _exported(network)
        nodes += list(branch.node)
        constants += list(branch.initializer)
        inputs += list(branch.input)
        outputs += list(branch.output)
    graph = helper.make_graph(nodes, HEAD, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    return bytes(model.SerializeToString())


def _exported(network: Corrector) -> Any:
    """Return the network's ONNX graph, its weights as float16."""
    from onnx import TensorProto, helper, numpy_helper

    leads = torch.zeros(1, 3 * network.n_leads, WINDOW_SAMPLES)
    graph = quietly_exported(network, {"leads": leads}, ["restored"], ({},)).graph
    casts, constants = [], []
    for one in graph.initializer:
        if one.data_type != TensorProto.FLOAT:
            constants.append(one)
            continue
        constants.append(numpy_helper.from_array(numpy_helper.to_array(one).astype(np.float16), f"{one.name}.half"))
        casts.append(helper.make_node("Cast", [constants[-1].name], [one.name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(constants)
    graph.node.extend(nodes)
    return graph


@torch.no_grad()
def _run(network: Corrector, leads: np.ndarray) -> np.ndarray:
    found: np.ndarray = network(torch.from_numpy(leads)).numpy()
    return found


def fit_restorer(
    model: Model,
    data: Path,
    splits_csv: Path,
    out: Path,
    progress: Callable[[str], None] = print,
    work: Path = Path("runs/restorer"),
) -> Head:
    """Fit on split train, calibrate on split val, write the head into a checkpoint folder.

    Parameters
    ----------
    model : Model
        Says how records are prepared.
    data : Path
        The restored databases.
    splits_csv : Path
    out : Path
        The checkpoint folder to write into.
    progress : callable
    work : Path
        Where the network's training keeps its state: an interrupted run goes on from there.
    """
    folder = prepare_databases(data, splits_csv, model.checkpoint.preparation, progress)
    grid = model.checkpoint.grid
    blocks, lagged = blocks_of(Corpus(folder, "train", TWELVE_LEAD_DATABASES), grid)
    progress(f"{len(lagged)} training blocks")
    mixture = fit_mixture(lagged)
    mixture = Mixture(mixture.share, mixture.lagged.astype(np.float16).astype(np.float32))  # as it is stored
    network = train_network(blocks, work)
    round_to_half(network.eval())
    val = list(each_block(Corpus(folder, "val", TWELVE_LEAD_DATABASES), grid))
    chosen = calibrate(mixture, partial(_run, network), val)
    progress(f"band factors {chosen['band_factors']}, shares of the network {chosen['network_shares']}")
    config: dict[str, Any] = {
        "kind": "restoration",
        "version": "2",
        "labels": [],
        "shares": np.round(mixture.share, 8).tolist(),
        **chosen,
        "trained_on": list(TWELVE_LEAD_DATABASES),
        "n_train_blocks": len(lagged),
        "n_val_blocks": len(val),
        "steps": [ALONE.steps, WITH_GUESS.steps],
    }
    write_head(out, HEAD, config, graph_of(mixture, network))
    head = open_head(out, HEAD)
    assert head is not None
    return head
