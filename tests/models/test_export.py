"""Export: the graphs agree with torch, the weights are stored once, a damaged folder is refused."""

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from anyecg.checkpoint import file_sha256, list_models, open_checkpoint
from anyecg.engine import FAST_GRAPHS, GRAPHS, Model, load
from anyecg.errors import CheckpointError
from anyecg.models.eight_bits import FastEncoderGraph, GuessGraph
from anyecg.models.export import load_networks
from anyecg.record import Record
from anyecg.tokens import to_fragments


def windows(tokens):
    ids = torch.tensor([[2, 8, 0]])  # II, V2, unknown
    return (
        torch.from_numpy(tokens.codes[None, :, :20].clip(0)).long(),
        torch.from_numpy(tokens.valid[None, :, :20]),
        ids,
    )


def test_codes_and_decoded_signal_equal_torchs(tiny_checkpoint, some_record):
    model = load(tiny_checkpoint)
    tokenizer, _ = load_networks(tiny_checkpoint)
    prepared = model.prepare(some_record)
    tokens = model.tokenize(some_record)
    fragments = to_fragments(prepared, tokens.grid)
    samples, valid = torch.from_numpy(fragments.samples), torch.from_numpy(fragments.valid)
    ids = torch.tensor([[2, 8, 0]]).expand(len(samples), -1)
    with torch.no_grad():
        codes = tokenizer.codes(samples, valid, ids)
        decoded = tokenizer.decode(codes, valid, ids)
    ours = tokens.codes[:, :20][tokens.valid[:, :20]]
    np.testing.assert_array_equal(ours, codes[0].numpy()[fragments.valid[0]])
    block_mv = decoded[0].flatten(1).numpy() * fragments.scale_mv[0][:, None]
    recorded = np.isfinite(model.decode(tokens).signal[:, :3000])
    difference = (model.decode(tokens).signal[:, :3000] - block_mv)[recorded]
    assert np.abs(difference).max() < 1e-4


def test_embeddings_and_surprise_equal_torchs(tiny_checkpoint, some_record):
    model = load(tiny_checkpoint)
    _, encoder = load_networks(tiny_checkpoint)
    tokens = model.tokenize(some_record.with_(signal=some_record.signal[:, :2500]))  # one window
    codes, valid, ids = windows(tokens)
    log_scale = torch.from_numpy(np.log(tokens.scale_mv[:1]))
    with torch.no_grad():
        layers = encoder(codes, valid, torch.zeros_like(valid), ids, log_scale, valid.any(dim=-1))
    ours = model.embed(tokens).per_fragment
    np.testing.assert_allclose(ours[tokens.valid], layers[1][0].numpy()[tokens.valid], atol=1e-4)

    surprise = model.surprise(tokens)
    mask = (torch.arange(3)[:, None] + torch.arange(20)) % 3 == 1
    with torch.no_grad():
        hidden = mask & valid[0]
        logits = encoder.guess(encoder(codes, valid, hidden[None], ids, log_scale, valid.any(dim=-1))[-1])
    bits = -logits.log_softmax(-1).gather(-1, codes[..., None])[0, ..., 0].mean(-1) / np.log(2)
    np.testing.assert_allclose(surprise[hidden.numpy()], bits[hidden].numpy(), atol=1e-4)
    assert np.isnan(surprise[~tokens.valid]).all()


@pytest.mark.parametrize("n_leads", [1, 3, 12])
def test_fast_graphs_say_nearly_what_the_exact_ones_say(n_leads):
    """With the shipped weights: of the tiny ones eight bits leave less. One lead has gaps."""
    leads = ("II", "V1", "V5", "I", "III", "aVR", "aVL", "aVF", "V2", "V3", "V4", "V6")[:n_leads]
    signal = np.random.default_rng(0).normal(size=(n_leads, 61 * 300)).astype(np.float32)
    signal[0, 3000:5000] = np.nan
    model = load("nano", threads=1)
    tokens = model.tokenize(Record(signal, 300.0, leads))
    for gain_known in (True, False):
        tokens = replace(tokens, gain_known=gain_known)
        exact, fast = model.embed(tokens).per_fragment, model.embed(tokens, fast=True).per_fragment
        bits, fast_bits = model.surprise(tokens), model.surprise(tokens, fast=True)
        there = tokens.valid
        assert not np.array_equal(exact, fast, equal_nan=True)  # they are other graphs
        assert np.isnan(fast[~there]).all() and np.isnan(fast_bits[~there]).all()
        assert np.corrcoef(exact[there].ravel(), fast[there].ravel())[0, 1] > 0.998
        assert np.corrcoef(bits[there], fast_bits[there])[0, 1] > 0.998


def test_fast_attention_and_guesses_are_those_of_the_encoder(tiny_checkpoint):
    """Before eight bits come in: in torch, to rounding."""
    _, encoder = load_networks(tiny_checkpoint)
    rng = torch.Generator().manual_seed(0)
    codes = torch.randint(encoder.codebook_size, (2, 4, 9, encoder.n_levels), generator=rng)
    valid = torch.rand(2, 4, 9, generator=rng) > 0.2
    window = (codes, valid, valid & (torch.rand(2, 4, 9, generator=rng) > 0.7), torch.arange(4).expand(2, 4))
    window = (*window, torch.randn(2, 4, generator=rng), torch.rand(2, 4, generator=rng) > 0.5)
    with torch.no_grad():
        layers = encoder(*window)
        embeddings, last = FastEncoderGraph(encoder, 1)(*window)
        nll = -encoder.guess(layers[-1]).log_softmax(-1).gather(-1, codes[..., None])[..., 0]
        torch.testing.assert_close(embeddings[valid], layers[1][valid], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(last[valid], layers[-1][valid], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(GuessGraph(encoder)(layers[-1], codes), nll, atol=1e-5, rtol=1e-4)


def test_a_checkpoint_without_fast_graphs_is_exact(tiny_checkpoint, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint, copy)
    config = json.loads((copy / "config.json").read_text())
    for name in FAST_GRAPHS:
        (copy / name).unlink()
        del config["files"][name]
    (copy / "config.json").write_text(json.dumps(config))
    model = load(copy, threads=1)
    signal = np.random.default_rng(0).normal(size=(2, 9000)).astype(np.float32)
    tokens = model.tokenize(Record(signal, 300.0, ("I", "II")))
    np.testing.assert_array_equal(model.embed(tokens, fast=True).per_fragment, model.embed(tokens).per_fragment)
    np.testing.assert_array_equal(model.surprise(tokens, fast=True), model.surprise(tokens))


@pytest.mark.parametrize("n_leads", [1, 2, 12, 16])
@pytest.mark.parametrize("duration_s", [0.6, 9.9, 30.0, 61.0])
def test_the_graphs_take_any_leads_and_any_length(tiny_checkpoint, n_leads, duration_s):
    signal = np.random.default_rng(0).normal(size=(n_leads, round(duration_s * 300))).astype(np.float32)
    record = Record(signal, 300.0, tuple(f"L{i}" for i in range(n_leads)))
    model = load(tiny_checkpoint, threads=1)
    tokens = model.tokenize(record)
    n_fragments = -(-record.n_samples // 150)
    assert tokens.codes.shape == (n_leads, n_fragments, 2)
    assert model.decode(tokens).signal.shape == signal.shape
    assert model.embed(tokens).per_fragment.shape == (n_leads, n_fragments, 16)
    assert model.surprise(tokens).shape == (n_leads, n_fragments)


def test_pieces_on_block_borders_give_the_codes_of_one_pass(tiny_checkpoint):
    signal = np.random.default_rng(0).normal(size=(2, 9500)).astype(np.float32)
    model = load(tiny_checkpoint)

    def codes(part):
        return model.tokenize(Record(part, 300.0, ("I", "II"), source_fs=300.0)).codes  # prepared already

    pieces = [codes(signal[:, :3000]), codes(signal[:, 3000:])]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), codes(signal))


def test_a_weight_is_stored_once(tiny_checkpoint):
    weights = tiny_checkpoint / "model.safetensors"
    for graph in (*GRAPHS, *FAST_GRAPHS):
        model = onnx.load(tiny_checkpoint / graph, load_external_data=False)
        inside = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
        outside = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
        assert outside
        assert {entry.value for t in outside for entry in t.external_data if entry.key == "location"} == {weights.name}
        assert inside < 2000, "only small constants lie in the graph"
        assert str(tiny_checkpoint.parent).encode() not in (tiny_checkpoint / graph).read_bytes()


def test_a_damaged_weight_file_is_refused(tiny_checkpoint, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint, copy)
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"SHA-256.*expected"):
        load(copy)


@pytest.mark.parametrize("name", ["encoder.onnx", "config.json"])
def test_a_missing_file_is_named(tiny_checkpoint, tmp_path, name):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint, copy)
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=r"missing|no such model"):
        load(copy)


def test_another_format_version_is_refused(tiny_checkpoint, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"format_version": 99}))
    with pytest.raises(CheckpointError, match="format 99, expected 1"):
        open_checkpoint(copy)


def test_a_checkpoint_of_format_1_is_upgraded(tiny_checkpoint, tmp_path):
    """Format 1 did not say how far attention reaches: then it was cardio-sparse everywhere, with a scale a lead."""
    copy = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint, copy)
    config = json.loads((copy / "config.json").read_text())
    for key in ("encoder_reach", "decoder_reach", "scale_per"):
        del config["model"]["tokenizer"][key]
    del config["model"]["encoder"]["reach"]
    state = load_file(copy / "model.safetensors")
    save_file(
        {k: v for k, v in state.items() if "to_amplitude" not in k and "to_demo" not in k}, copy / "model.safetensors"
    )
    config["files"]["model.safetensors"] = file_sha256(copy / "model.safetensors")
    (copy / "config.json").write_text(json.dumps(config | {"format_version": 1}))
    opened = open_checkpoint(copy)
    assert opened.config["format_version"] == 2
    assert opened.grid.scale_per == "lead"
    tokenizer, encoder = load_networks(copy)
    assert {block.reach for block in (*tokenizer.encoder, *tokenizer.decoder, *encoder.blocks)} == {"cardio-sparse"}


def test_a_folder_of_checkpoints_is_listed(tiny_checkpoint, monkeypatch):
    monkeypatch.setenv("ANYECG_CHECKPOINTS", str(tiny_checkpoint.parent))
    entry = next(entry for entry in list_models() if entry["name"] == "tiny")
    assert entry["parameters"] > 1000
    assert isinstance(load("tiny"), Model)


def test_an_unknown_name_is_one_line():
    with pytest.raises(CheckpointError, match="no such model, expected one of"):
        load("no-such-model")


def test_shipped_graphs_name_no_path_of_the_machine_that_made_them() -> None:
    from anyecg.checkpoint import open_checkpoint

    graphs = sorted(open_checkpoint("nano").folder.rglob("*.onnx"))
    assert len(graphs) >= 5
    for path in graphs:
        content = path.read_bytes()
        assert b"site-packages" not in content and b"/src/anyecg/" not in content, path.name
