"""The speed rows run, write what they say they write, and measure what they say they measure."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import anyecg
from anyecg.signals import bridge_gaps

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "speed"))

import bulk
import days
import length
import machine
import peers
import throughput
import training

ROOT = Path(__file__).parents[2]
KEYS = ("wall_s", "cpu_s", "peak_mib")


def cells(path, first):
    """The cells of the table row that begins so."""
    lines = [line for line in path.with_suffix(".md").read_text().splitlines() if line.startswith(f"| {first}")]
    assert len(lines) == 1, lines
    return [cell.strip() for cell in lines[0].strip("|").split("|")]


# -- what is measured ----------------------------------------------------------------------------------------


def test_memory_is_the_childs_and_not_ours():
    small, large = (
        machine.finish(machine.start([sys.executable, "-c", f"x = bytearray({n} * 2**20)"])) for n in (1, 200)
    )
    assert 190 < large["peak_mib"] - small["peak_mib"] < 215
    assert small["peak_mib"] < 100  # this process, which has torch in it, is larger


def test_time_is_the_commands():
    began = time.perf_counter()
    found = machine.finish(machine.start([sys.executable, "-c", "import time; time.sleep(0.3)"]))
    assert 0.3 < found["wall_s"] <= time.perf_counter() - began
    assert found["cpu_s"] < found["wall_s"]


def test_a_command_that_fails_is_no_result():
    with pytest.raises(SystemExit, match="code 3"):
        machine.finish(machine.start([sys.executable, "-c", "raise SystemExit(3)"]))


def test_a_command_keeps_to_the_cores_it_is_given():
    core = machine.usable_cores()[-1]
    code = "import os; print(sorted(os.sched_getaffinity(0)))"
    assert machine.finish(machine.start([sys.executable, "-c", code], [core]))["out"].strip() == f"[{core}]"


# -- made files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_leads", "fs"), [(1, 250), (3, 250), (12, 500)])
def test_a_made_file_is_the_ecg_end_to_end(tmp_path, n_leads, fs):
    ecg_mv, words = days.source_ecg(None, fs)
    ecg_mv = ecg_mv[: 7 * fs]  # shorter than the file, so that it is laid end to end
    record = anyecg.read(days.write_day(tmp_path / "day", ecg_mv, 20, n_leads, fs))
    assert record.leads == days.LEADS[n_leads] and record.fs == fs and record.n_samples == 20 * fs
    assert "toy" in words and not record.warnings
    lead_two = record.pick(["II"]).signal[0]
    assert np.abs(lead_two - np.resize(ecg_mv, 20 * fs)).max() < 6 * days.NOISE_MV
    if n_leads == 12:
        one, two, three = record.pick(["I", "II", "III"]).signal
        assert np.abs(one + three - two).max() < 10 * days.NOISE_MV


def test_checksums_are_wfdbs(tmp_path):
    import wfdb

    ecg_mv, _ = days.source_ecg(None, 250)
    path = days.write_day(tmp_path / "day", ecg_mv, 700, 1, 250)  # more than the five minutes
    record = wfdb.rdrecord(str(path.with_suffix("")), physical=False)
    assert [checksum % 2**16 for checksum in record.checksum] == record.calc_checksum()


@pytest.mark.data
def test_records_joined_are_of_the_test_split(database):
    data = database(days.DATABASE).parent
    if not (data / "splits.csv").is_file():
        pytest.skip("needs splits.csv beside the databases")
    ecg_mv, words = days.source_ecg(data, 250)
    assert len(ecg_mv) == pytest.approx(22 * 1805.5 * 250, rel=1e-3) and "22 test records" in words
    first = anyecg.read(data / days.DATABASE / "100.hea")
    begins = days._at(bridge_gaps(first.signal[:1])[0], first.fs, 250)
    assert np.allclose(ecg_mv[: len(begins)], begins)


# -- the rows ------------------------------------------------------------------------------------------------


def test_length_merges_its_parts(tmp_path):
    out, machine_ = tmp_path / "length", machine.about()
    ecg = days.source_ecg(None, 250)[1]
    made = {
        f"{length_} x 3 at 250 Hz": {"runs": [dict(zip(KEYS, run, strict=True))], "machine": machine_, "ecg": ecg}
        for length_, run in {"1h": (2.0, 2.0, 300.0), "24h": (60.0, 90.0, 330.0), "10s": (-1.0, -1.0, -1.0)}.items()
    }
    out.with_suffix(".json").write_text(json.dumps(made))
    length.main(["--quick", "--out", str(out)])
    row = cells(out, "24h x 3")
    assert row[4:8] == ["1,440", "1.25", "330", "1.10"] and "1,000 x" in row[8]
    (run,) = json.loads(out.with_suffix(".json").read_text())["10s x 3 at 250 Hz"]["runs"]  # measured anew
    assert 0 < run["cpu_s"] and 50 < run["peak_mib"] < 2000


def test_length_refuses_to_mix_signals(tmp_path):
    out = tmp_path / "length"
    out.with_suffix(".json").write_text(json.dumps({"1h x 3 at 250 Hz": {"runs": [], "ecg": "another"}}))
    with pytest.raises(SystemExit):
        length.main(["--quick", "--out", str(out)])


def check_peers(out, n_sides):
    peers.main(["--quick", "--out", str(out)])
    runs = json.loads(out.with_suffix(".json").read_text())["runs"]
    assert len(runs) == n_sides and "neurokit2" in out.with_suffix(".md").read_text()  # said to be missing
    assert all(0 < run["call_s"] < run["wall_s"] for name, (run,) in runs.items() if not name.startswith("anyecg"))


def test_a_peer_runs_beside_us(tmp_path, monkeypatch):
    fast = {name: call for name, call in peers.CALLS.items() if name.startswith(("sleepecg", "neurokit2"))}
    monkeypatch.setattr(peers, "CALLS", fast)
    check_peers(tmp_path / "peers", 2)


@pytest.mark.slow
def test_all_our_peers_run_beside_us(tmp_path):
    check_peers(tmp_path / "peers", 3)


def test_bulk_analyses_every_file(tmp_path):
    out = tmp_path / "bulk"
    bulk.main(["--quick", "--out", str(out)])
    assert all(float(cells(out, f"`{verb}` | 1")[4]) > 0 for verb in bulk.VERBS)


def check_stage(stage, least_tokens):
    (step,) = stage["steps"]
    assert least_tokens <= step["tokens"] <= 12 * 20 + 60  # windows have their own leads and lengths
    assert stage["flop"] > 1e6 * step["tokens"]
    assert stage["flop"] / step["step_s"] < 2 * max(step["fp32_flop_per_s"], step["bf16_flop_per_s"])


@pytest.mark.parametrize("name", training.STAGES)
def test_training_counts_tokens_and_operations(name, monkeypatch):
    import torch

    monkeypatch.chdir(ROOT)
    n_threads = torch.get_num_threads()
    try:
        check_stage(training.steps(name, 1, 1, 1), 4)
    finally:
        torch.set_num_threads(n_threads)


@pytest.mark.slow
def test_training_measures_both_stages(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    out = tmp_path / "training"
    training.main(["--quick", "--out", str(out)])
    for stage in json.loads(out.with_suffix(".json").read_text())["stages"].values():
        check_stage(stage, 4)
        assert stage["peak_mib"] > 100


@pytest.fixture(scope="module")
def sides():
    """The shipped model, and one real record cut for its graphs."""
    model = anyecg.load("nano", threads=1)
    ((record,),) = throughput.real_records(None, 1).values()
    return model, throughput.batch_of(model, [record]), record


def test_the_runtimes_agree(sides):
    model, inputs, record = sides
    ours, torchs = throughput.onnx_side(model.checkpoint.folder, 1), throughput.torch_side(model.checkpoint.folder, 1)
    found = throughput.agreement(ours, torchs, [inputs])
    assert found["codes_equal"] > 0.999 and found["embedding_cosine_median"] > 0.9999
    codes, embeddings = ours(inputs)
    assert np.array_equal(codes[0], model.tokenize(record).codes)  # it is the model's own way that is timed
    assert np.allclose(embeddings[0], model.embed(record).per_fragment, atol=1e-4)


def test_the_fast_side_is_what_long_recordings_use(sides):
    model, inputs, record = sides
    fast = throughput.onnx_side(model.checkpoint.folder, 1, throughput.FAST_GRAPHS[0])
    found = throughput.agreement(throughput.onnx_side(model.checkpoint.folder, 1), fast, [inputs])
    assert found["codes_equal"] == 1 and 0.99 < found["embedding_cosine_median"] < 1
    in_long = model.embed(record, fast=True).per_fragment
    assert np.allclose(fast(inputs)[1][0], in_long, atol=1e-4)
    other = throughput.FastModel(model.checkpoint, threads=1)
    assert np.array_equal(other.embed(record).per_fragment, in_long)
    assert np.allclose(anyecg.analyze(record, other).embedding, other.embed(record).pooled, atol=1e-5)
    assert not np.allclose(anyecg.analyze(record, model).embedding, other.embed(record).pooled, atol=1e-5)


def test_int8_must_agree_to_be_used():
    rates = {throughput.FAST: [20.0], throughput.EXACT: [10.0]}
    some = {"n_findings": 100}
    numbers = {
        "speed": [{"records_per_s": rates}],
        "findings": [
            {"findings_equal": 0.993, "records": "a val", **some},
            {"findings_equal": 0.98, "records": "a test", **some},
        ],
    }
    assert "int8 is worth" in throughput.verdict(numbers) and "2.00 x" in throughput.verdict(numbers)
    numbers["findings"].append({"findings_equal": 0.98, "records": "b val", **some})
    assert "not worth" in throughput.verdict(numbers)


def test_speed_counts_records():
    asked = []

    def run(inputs):
        asked.append(len(inputs["valid"]))
        time.sleep(0.02)

    rates = throughput.speed({"a": run}, {"valid": np.ones((4, 1, 1))}, 2, 0.05)
    assert len(rates["a"]) == 2 and all(100 < rate < 201 for rate in rates["a"]) and set(asked) == {4}
