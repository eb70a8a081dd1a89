"""Throughput: 10 s 12-lead records a second through tokenizer encoder and encoder, and what 8 bits change.

    python benchmarks/speed/throughput.py                  # speed, and agreement on one record
    python benchmarks/speed/throughput.py --data data      # agreement on real records, val and test apart

Sides, in one process, in turn, with the same threads and inputs (real records, prepared and cut beforehand):
onnxruntime with the shipped graphs in float32; the same with the encoder that multiplies in 8 bits, which long
recordings use after ten minutes; torch eager in float32, from the same weights. The encoder stops at the embeddings.

8 bits are worth using only where at least 99 % of findings on real records stay the same. Codes do: the tokenizer
stays float32 (in 8 bits one code in ten changes).
"""

import argparse
import csv
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from machine import REPEATS, about, in_words, save, spread, table, usable_cores

import anyecg
from anyecg.engine import ENCODER_INPUTS, FAST_GRAPHS, Embedding, Model
from anyecg.graphs import Graphs
from anyecg.record import Record
from anyecg.tokens import Tokens, to_fragments

TOKENIZER, ENCODER = "tokenizer_encoder.onnx", "encoder.onnx"
EXACT, FAST, EAGER = "onnxruntime fp32", "onnxruntime, encoder in int8", "torch eager fp32"
BATCHES = (1, 4, 16)
DATABASES = ("ptb-xl", "cinc2017")
AIM = 1.3
"""The fastest of ours against torch eager, records a second."""
AGREE = 0.99
PAUSE_S = 0.05
"""Between sides: threads of torch wait awake for more work for some milliseconds."""

Inputs = dict[str, np.ndarray]
Side = Callable[[Inputs], tuple[np.ndarray, np.ndarray]]
"""Inputs of a batch -> codes (B, L, P, K), embeddings (B, L, P, D)."""


# -- inputs --------------------------------------------------------------------------------------------------


def real_records(data: Path | None, n: int) -> dict[str, list[Record]]:
    """Return up to n records of each split, by split; without data the one that comes with pydicom."""
    if data is None:
        from pydicom.data import get_testdata_file

        return {"pydicom's sample": [anyecg.read(str(get_testdata_file("waveform_ecg.dcm", download=False)))]}
    with open(data / "splits.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    chosen: dict[str, list[Record]] = {}
    for database, split in product(DATABASES, ("val", "test")):
        names = [row["record"] for row in rows if (row["database"], row["split"]) == (database, split)]
        chosen[f"{database} {split}"] = [anyecg.read(data / database / f"{name}.hea") for name in names[:n]]
    return chosen


def batch_of(model: Model, records: list[Record]) -> Inputs:
    """Return the inputs of both networks for records of one block each; codes are filled in by a side."""
    parts = []
    for record in records:
        grid = model.checkpoint.grid
        prepared = model.prepare(record)
        block = prepared.with_(signal=prepared.signal[:, : grid.block_samples])
        tokens, fragments = model.tokenize(block), to_fragments(block, grid)
        windows = model.windows(tokens)
        part = {name: getattr(windows, name) for name in ENCODER_INPUTS if name != "codes"}
        parts.append(part | {"samples": fragments.samples})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# -- sides ---------------------------------------------------------------------------------------------------


class FastModel(Model):
    """A model whose encoder multiplies in 8 bits wherever `anyecg.analyze` asks it, as after ten minutes."""

    def embed(self, record: Record | Tokens, *, fast: bool = True) -> Embedding:
        """Embed, fast."""
        return super().embed(record, fast=True)

    def surprise(self, tokens: Tokens, only: np.ndarray | None = None, *, fast: bool = True) -> np.ndarray:
        """Ask for surprise, fast."""
        return super().surprise(tokens, only, fast=True)


def onnx_side(folder: Path, threads: int, encoder: str = ENCODER) -> Side:
    """Return how `anyecg.engine` runs the graphs of a folder."""
    graphs = Graphs(folder, threads)

    def run(inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
        on_leads = {name: inputs[name] for name in ("samples", "valid", "lead_ids")}
        (codes,) = graphs.run_by_lead(TOKENIZER, None, **on_leads)
        window = {name: codes if name == "codes" else inputs[name] for name in ENCODER_INPUTS}
        return codes, graphs.run(encoder, ["embeddings"], **window)[0]

    return run


def torch_side(folder: Path, threads: int) -> Side:
    """Return how torch runs the networks of a checkpoint, eagerly; layers above the embeddings are left out."""
    import torch

    from anyecg.checkpoint import open_checkpoint
    from anyecg.models.export import load_networks

    tokenizer, encoder = load_networks(folder)
    layer = int(open_checkpoint(folder).config["embedding_layer"])

    @torch.inference_mode()
    def run(inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
        torch.set_num_threads(threads)
        x = {name: torch.from_numpy(array) for name, array in inputs.items()}
        codes = tokenizer.codes(x["samples"], x["valid"], x["lead_ids"])
        hidden = encoder.embed(codes, x["mask"], x["lead_ids"], x["log_scale"], x["scale_known"])
        for block in encoder.blocks[:layer]:
            hidden = block(hidden, x["valid"])
        embeddings = encoder.norm(hidden) if layer == len(encoder.blocks) else hidden
        return codes.numpy(), embeddings.numpy()

    return run


# -- speed and agreement -------------------------------------------------------------------------------------


def speed(sides: dict[str, Side], inputs: Inputs, repeats: int, least_s: float) -> dict[str, list[float]]:
    """Return records a second of each side and repeat; a repeat lasts at least ``least_s``."""
    n_records = len(inputs["valid"])
    found: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, run in sides.items():
            time.sleep(PAUSE_S)
            n_runs, started = 0, time.perf_counter()
            while (took_s := time.perf_counter() - started) < least_s or not n_runs:
                run(inputs)
                n_runs += 1
            if turn:  # the first warms up
                found[name].append(n_records * n_runs / (took_s or time.perf_counter() - started))
    return found


def agreement(one: Side, other: Side, batches: list[Inputs]) -> dict[str, float]:
    """Return the share of equal codes, of level 1 and of all, and how far embeddings lie apart where all are equal."""
    equal, first, furthest, cosine = [], [], 0.0, []
    for inputs in batches:
        (codes, embeddings), (codes_too, embeddings_too) = one(inputs), other(inputs)
        valid = inputs["valid"]
        same = (codes == codes_too)[valid]  # (n, K)
        equal.append(same)
        first.append(same[:, 0])
        a, b = embeddings[valid], embeddings_too[valid]
        cosine.append((a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)))
        if same.all():
            furthest = max(furthest, float(np.abs(a - b).max()))
    return {
        "codes_equal": float(np.concatenate(equal).mean()),
        "level_1_equal": float(np.concatenate(first).mean()),
        "embedding_cosine_median": float(np.median(np.concatenate(cosine))),
        "embedding_difference_max": furthest,
        "records_with_equal_codes": float(np.mean([same.all() for same in equal])),
    }


def findings_agreement(one: Model, other: Model, records: list[Record]) -> dict[str, float]:
    """Return the share of findings, yes or no, that stay the same, and of records of which all do."""
    same, whole, n_present, moved = [], [], 0, []
    for record in records:
        found, found_too = ({(f.source, f.code): f for f in anyecg.analyze(record, m).findings} for m in (one, other))
        keys = found.keys() | found_too.keys()
        both = [k in found and k in found_too and found[k].present == found_too[k].present for k in keys]
        same += both
        whole.append(all(both))
        n_present += sum(f.present is True for f in found.values())
        moved += [abs((found[k].score or 0) - (found_too[k].score or 0)) for k in found.keys() & found_too.keys()]
    return {
        "n_findings": len(same),
        "n_present": n_present,
        "findings_equal": float(np.mean(same)) if same else float("nan"),
        "records_equal": float(np.mean(whole)),
        "score_moved_p95": float(np.quantile(moved, 0.95)) if moved else float("nan"),
    }


# -- the tables ----------------------------------------------------------------------------------------------


def all_tables(numbers: dict[str, Any]) -> str:
    """Return speed, agreement of the networks and of findings, and the verdict."""
    rows = []
    for case in numbers["speed"]:
        torch_s = float(np.median(case["records_per_s"][EAGER]))
        for name, rates in case["records_per_s"].items():
            rows.append([str(case["threads"]), str(case["batch"]), name, spread(rates, 1),
                         f"{np.median(rates) / torch_s:.2f}"])  # fmt: skip
    parts = [table(["threads", "batch", "side", "records/s, median (range)", "x torch eager"], rows)]
    parts.append(f"Aim: at least {AIM} x torch eager fp32 on the same threads, in fp32 or in int8.")
    rows = [
        [
            name, case["records"], str(case["n"]), f"{case['codes_equal']:.4f}", f"{case['level_1_equal']:.4f}",
            f"{case['embedding_cosine_median']:.5f}",
            f"{case['embedding_difference_max']:.1e} ({case['records_with_equal_codes']:.0%})"
            if case["records_with_equal_codes"]
            else "- (none)",
        ]
        for name, cases in numbers["agreement"].items()
        for case in cases
    ]  # fmt: skip
    parts.append(table(
        ["against the shipped graphs", "records", "n", "codes equal", "of level 1", "embedding cosine, median",
         "largest difference, in records whose codes are all equal (share of records)"], rows))  # fmt: skip
    rows = [
        [case["records"], str(case["n"]), f"{case['n_findings']} ({case['n_present']} present)",
         f"{case['findings_equal']:.4f}", f"{case['records_equal']:.3f}", f"{case['score_moved_p95']:.3f}"]
        for case in numbers["findings"]
    ]  # fmt: skip
    parts.append(table(["records", "findings", "equal", "records of which all are equal",
                        "score moved, 95th percentile"], rows))  # fmt: skip
    parts.append("Findings of whole records, the encoder in int8 against float32. " + verdict(numbers))
    parts.append(in_words(numbers["machine"]))
    return "\n\n".join(parts)


def verdict(numbers: dict[str, Any]) -> str:
    """Say whether 8 bits may be used: findings agree on all records of val, which chooses, and it is faster."""
    chosen = [case for case in numbers["findings"] if not case["records"].endswith("test")]
    findings = sum(case["findings_equal"] * case["n_findings"] for case in chosen)
    findings /= sum(case["n_findings"] for case in chosen)
    gain = float(np.median([
        np.median(c["records_per_s"][FAST]) / np.median(c["records_per_s"][EXACT]) for c in numbers["speed"]
    ]))  # fmt: skip
    may = findings >= AGREE and gain > 1
    return (
        f"The encoder in int8 is {'worth' if may else 'not worth'} using: {findings:.2%} of findings stay on "
        f"{' and '.join(case['records'] for case in chosen)} (at least {AGREE:.0%} are asked), tokenizer and encoder "
        f"together reach {gain:.2f} x the speed of fp32 (median over the rows)."
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the tables, write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help="name or folder of a checkpoint")
    parser.add_argument("--data", type=Path, help="restored databases and splits.csv")
    parser.add_argument("--records", type=int, default=50, help="of each split, for agreement")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--quick", action="store_true", help="one batch of one, once: does it work")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/throughput"))
    asked = parser.parse_args(arguments)
    repeats, least_s, batches = (1, 0.0, (1,)) if asked.quick else (asked.repeats, 1.0, BATCHES)

    model = anyecg.load(asked.model)
    records = real_records(asked.data, 1 if asked.quick else asked.records)
    inputs = {name: [batch_of(model, [record]) for record in found] for name, found in records.items()}
    first = next(iter(inputs.values()))
    numbers: dict[str, Any] = {"machine": about("onnxruntime", "torch"), "speed": [], "agreement": {}, "findings": []}
    folder = model.checkpoint.folder
    for threads in range(1, min(2, len(usable_cores())) + 1):
        sides = {
            EXACT: onnx_side(folder, threads),
            FAST: onnx_side(folder, threads, FAST_GRAPHS[0]),
            EAGER: torch_side(folder, threads),
        }
        for n in batches:
            batch = {key: np.concatenate([first[i % len(first)][key] for i in range(n)]) for key in first[0]}
            rates = speed(sides, batch, repeats, least_s)
            numbers["speed"].append({"threads": threads, "batch": n, "records_per_s": rates})
    for other in (FAST, EAGER):
        numbers["agreement"][other] = [
            {"records": where, "n": len(found), **agreement(sides[EXACT], sides[other], found)}
            for where, found in inputs.items()
        ]
    exact, fast = (kind(model.checkpoint, threads=1) for kind in (Model, FastModel))
    for where, found in records.items():
        numbers["findings"].append({"records": where, "n": len(found), **findings_agreement(exact, fast, found)})
    save(asked.out, "Throughput", all_tables(numbers), numbers)


if __name__ == "__main__":
    main()
