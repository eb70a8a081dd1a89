"""Fine-tuning end to end on a tiny model: files of several formats and lead sets in, a checkpoint with a head out."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import anyecg
from anyecg.beats import find_beats
from anyecg.errors import CheckpointError, ReadError, SignalError, WriteError
from anyecg.heads import open_head
from anyecg.quality import assess
from anyecg.record import Record
from anyecg.result import Finding
from anyecg.tasks.arrhythmia import head_outputs, labels_of, record_logits, window_logits
from anyecg.writers import write

torch = pytest.importorskip("torch")

from anyecg.models.export import load_networks  # noqa: E402
from anyecg.training.examples import Example, Variation, tokenise  # noqa: E402
from anyecg.training.fit_head import HeadSettings, fit_head, predict_logits  # noqa: E402

SETTINGS = HeadSettings(epochs=2, linear_epochs=15, batch_size=8, learning_rate=1e-2)


def made_up(fast: bool, leads: tuple[str, ...], seed: int) -> Record:
    """10 s at 250 Hz with narrow beats: 40 or 110 a minute. Synthetic: for mechanics, never for claims."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(2500) / 250
    period_s = 60 / (110 if fast else 40) * rng.uniform(0.95, 1.05)
    beat = np.exp(-((((time_s - rng.uniform(0.1, 0.5)) % period_s - 0.2) / 0.012) ** 2))
    signal = rng.uniform(0.6, 1.4, (len(leads), 1)) * beat + rng.normal(0, 0.01, (len(leads), 2500))
    return Record(signal.astype(np.float32), 250.0, leads, id=f"r{seed}")


def found_in(record: Record, model: anyecg.engine.Model) -> dict[str, Finding]:
    """Ask the heads alone: the tiny model has no normal reference, so analyze() refuses it."""
    prepared = model.prepare(record)
    quality = assess(record, prepared)
    logits = window_logits(model, model.tokenize(prepared), find_beats(prepared, quality), quality)
    findings = labels_of(model, logits, quality, prepared.duration_s)
    return {finding.code: finding for finding in findings}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four files, one of them damaged, and labels.csv with a label that no one knows of some."""
    folder = tmp_path_factory.mktemp("labelled")
    lines = ["file,patient,split,fast,AFIB"]
    sets: list[tuple[str, ...]] = [("I", "II", "V2"), ("II",), ("watch",), ("I", "II", "III", "V1", "V5")]
    for i in range(24):
        fast = i % 2 == 0
        name = f"r{i}.{('csv', 'edf', 'npy')[i % 2]}"
        write(made_up(fast, sets[(i // 2) % 4], i), folder / name)
        split = "train" if i < 14 else "val" if i < 20 else "test"
        lines.append(f"{name},p{i},{split},{int(fast)},{'' if i % 3 else int(fast)}")
    (folder / "broken.csv").write_bytes(b"\x00\x01nothing")
    lines.append("broken.csv,px,train,1,")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def tuned(labelled: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    said: list[str] = []
    output = tmp_path_factory.mktemp("tuned") / "mine"
    anyecg.finetune(
        *(labelled / "labels.csv", output, tiny_checkpoint),
        **{"head": "rate", "mode": "full", "settings": SETTINGS, "progress": said.append},
    )
    return output, said


def test_a_head_that_tells_what_it_was_taught(tuned: tuple[Path, list[str]], labelled: Path) -> None:
    output, said = tuned
    model = anyecg.load(output)
    right = 0
    for i in range(20, 24):
        record = anyecg.read(labelled / f"r{i}.{('csv', 'edf')[i % 2]}")
        finding = found_in(record, model)["fast"]
        assert finding.leads == record.leads and finding.source == "rate"
        right += finding.present is (i % 2 == 0)
    assert right == 4
    assert any("1 of 25 files left out" in line for line in said)
    assert any("broken.csv" in line for line in said)


def test_the_head_says_how_it_was_made(tuned: tuple[Path, list[str]]) -> None:
    head = open_head(tuned[0], "rate")
    assert head is not None
    assert [label.code for label in head.labels] == ["fast", "AFIB"]
    assert head.labels[1].snomed == "164889003"
    assert head.config["n_train"] == {"records": 14, "patients": 14}
    measured = head.config["measured"]["test"]
    assert measured["records"] == 4 and measured["labels"][0]["auroc"] == 1.0
    assert measured["labels"][1]["n"] == 1  # of the others it is not known


def test_trees_are_random_where_records_are_few_and_answer_beside_the_network(tuned: tuple[Path, list[str]]) -> None:
    head = open_head(tuned[0], "rate")
    assert head is not None
    config = head.config
    assert config["trees"]["trees"] == 100 and config["trees"]["least_in_a_leaf"] == 8
    assert config["trees"]["windows"] >= 14 * 4
    assert config["tree_weight"] > 0 and config["few_leads"]["tree_weight"] >= 0
    model = anyecg.load(tuned[0])
    scores = {}
    for fast in (True, False):
        record = model.prepare(made_up(fast, ("I", "II", "V2"), 60))
        network, trees = head_outputs(model, head, model.tokenize(record), find_beats(record), record)
        scores[fast] = trees[0]
        (logit, _) = record_logits(model, head, model.tokenize(record), find_beats(record), prepared=record)
        summed = network[0] + config["tree_weight"] * trees[0]
        wanted = summed * config["slopes"][0] / config["temperature"] + config["shifts"][0]
        assert logit == pytest.approx(wanted, abs=1e-3)
    assert scores[True] > 0 > scores[False]


def test_without_trees_the_network_answers_alone(labelled: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    anyecg.finetune(
        *(labelled / "labels.csv", tmp_path / "plain", tiny_checkpoint),
        **{"settings": SETTINGS, "trees": False, "progress": lambda _: None},
    )
    head = open_head(tmp_path / "plain", "labels")
    assert head is not None and "measures" not in head.config and len(head.config["slopes"]) == 2
    assert "test" in head.config["measured"]
    assert found_in(made_up(True, ("II",), 3), anyecg.load(tmp_path / "plain"))


def test_records_of_one_lead_are_measured_as_such(tiny_checkpoint: Path, tmp_path: Path) -> None:
    lines = ["file,label,split"]
    for i in range(20):
        write(made_up(i % 2 == 0, ("II",), i), tmp_path / f"r{i}.csv")
        lines.append(f"r{i}.csv,{'fast' if i % 2 == 0 else 'slow'},{'train' if i < 14 else 'val'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    anyecg.finetune(
        *(tmp_path / "labels.csv", tmp_path / "new", tiny_checkpoint),
        **{"settings": SETTINGS, "progress": lambda _: None},
    )
    config = open_head(tmp_path / "new", "labels").config  # type: ignore[union-attr]
    assert config["most_leads"] == 2 and "few_leads" not in config and config["tree_weight"] > 0
    assert "shape: kurtosis" in config["measures"] and config["trees"]["windows"] == 14
    for fast in (True, False):
        found = found_in(made_up(fast, ("II",), 50), anyecg.load(tmp_path / "new"))
        assert found["fast"].present is fast and found["slow"].present is not fast


def test_graph_and_network_agree(tiny_checkpoint: Path) -> None:
    from anyecg.models.export import export_head, round_to_half

    model = anyecg.load(tiny_checkpoint)
    _, encoder = load_networks(tiny_checkpoint)
    records = [made_up(i % 2 == 0, ("I", "II"), i) for i in range(8)]
    examples = tokenise(
        model, [Example(model.prepare(r), np.array([i % 2], np.float32), str(i)) for i, r in enumerate(records)]
    )
    for mode in ("linear", "partial", "full"):
        settings = HeadSettings(mode=mode, epochs=1, linear_epochs=2)  # type: ignore[arg-type]
        head = fit_head(encoder, [examples], examples, settings).head
        round_to_half(head)
        wanted = predict_logits(encoder, head, examples)
        import onnxruntime

        session = onnxruntime.InferenceSession(export_head(head, encoder.config), providers=["CPUExecutionProvider"])
        for i, record in enumerate(records):
            windows = model.windows(model.tokenize(record))
            (logits,) = session.run(
                None,
                {
                    "hidden": model.layer(windows, head.first_layer),
                    "valid": windows.valid,
                    "lead_ids": windows.lead_ids,
                    "features": examples.features[i : i + 1],
                },
            )
            np.testing.assert_allclose(logits[0], wanted[i], atol=2e-3)


def test_the_same_seed_gives_the_same_head(tiny_checkpoint: Path) -> None:
    model = anyecg.load(tiny_checkpoint)
    _, encoder = load_networks(tiny_checkpoint)
    made = [
        Example(model.prepare(made_up(i % 2 == 0, ("II", "V2"), i)), np.array([i % 2], np.float32), str(i))
        for i in range(8)
    ]
    examples, varied = tokenise(model, made), tokenise(model, made, Variation({}, seed=1))
    assert (examples.codes != varied.codes[:, :, : examples.codes.shape[2]]).any()
    settings = HeadSettings(mode="full", epochs=2, linear_epochs=3)
    heads = [fit_head(encoder, [examples, varied], examples, settings).head for _ in range(2)]
    for name, x in heads[0].state_dict().items():
        torch.testing.assert_close(x, heads[1].state_dict()[name], rtol=0, atol=0)


def test_leads_of_no_use_do_not_count(tuned: tuple[Path, list[str]]) -> None:
    model = anyecg.load(tuned[0])
    record = made_up(True, ("I", "II", "V2"), 40)
    flat = record.with_(signal=np.where(np.arange(3)[:, None] == 1, 0, record.signal))
    without = record.with_(signal=np.where(np.arange(3)[:, None] == 1, np.nan, record.signal))
    found = found_in(flat, model)["fast"]
    assert found.leads == ("I", "V2")
    assert found.score == pytest.approx(found_in(without, model)["fast"].score)


def test_noise_alone_cannot_be_assessed(tuned: tuple[Path, list[str]]) -> None:
    flat = Record(np.zeros((2, 2500), np.float32), 250.0, ("I", "II"))
    findings = found_in(flat, anyecg.load(tuned[0]))
    assert findings and all(f.present is None and f.score is None for f in findings.values())


def test_nothing_is_replaced_unasked(tuned: tuple[Path, list[str]], labelled: Path, tiny_checkpoint: Path) -> None:
    csv = labelled / "labels.csv"
    with pytest.raises(WriteError, match="has a head 'rate' already"):
        anyecg.finetune(csv, tuned[0], tiny_checkpoint, head="rate")
    with pytest.raises(WriteError, match="--force to add"):
        anyecg.finetune(csv, tuned[0], tiny_checkpoint, head="other")
    with pytest.raises(WriteError, match="no checkpoint"):
        anyecg.finetune(csv, labelled, tiny_checkpoint)
    with pytest.raises(WriteError, match="other weights"):
        anyecg.finetune(csv, tuned[0], "nano", force=True)
    with pytest.raises(WriteError, match=r"nothing can be written to .*labels\.csv"):
        anyecg.finetune(csv, csv / "deep" / "mine", tiny_checkpoint)
    with pytest.raises(ReadError, match="expected the noise database"):
        anyecg.finetune(csv, labelled / "new", tiny_checkpoint, data=labelled)
    with pytest.raises(ValueError, match="head name"):
        anyecg.finetune(csv, labelled / "new", tiny_checkpoint, head="../x")


def test_files_that_cannot_be_read_at_all(tmp_path: Path, tiny_checkpoint: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,label,split\na.edf,N,train\nb.edf,AF,val\n")
    with pytest.raises(SignalError, match="no usable train record is left of 2"):
        anyecg.finetune(tmp_path / "labels.csv", tmp_path / "out", tiny_checkpoint)
    assert not (tmp_path / "out").exists()


def test_a_damaged_head_is_refused(tuned: tuple[Path, list[str]], tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(tuned[0], tmp_path / "copy")
    with open(copy / "heads" / "rate.onnx", "ab") as file:
        file.write(b"x")
    with pytest.raises(CheckpointError, match=r"rate\.onnx: SHA-256"):
        open_head(copy, "rate")


def test_a_head_of_other_weights_is_refused(tuned: tuple[Path, list[str]], tmp_path: Path) -> None:
    import json
    import shutil

    copy = shutil.copytree(tuned[0], tmp_path / "copy")
    path = copy / "heads" / "rate.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"parent_sha256": "0" * 64}))
    with pytest.raises(CheckpointError, match="fitted to weights 000000"):
        found_in(made_up(True, ("II",), 3), anyecg.load(copy))


def test_the_command(labelled: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    from anyecg.cli import app

    run = CliRunner().invoke(app, ["finetune", str(tiny_checkpoint), "--labels", str(labelled / "labels.csv")])
    assert run.exit_code == 2 and "needs --labels CSV and --output" in run.output
    run = CliRunner().invoke(
        app,
        ["finetune", str(tiny_checkpoint), "--labels", str(labelled / "labels.csv"), "-o", str(tmp_path / "new")],
    )
    assert run.exit_code == 0, run.output
    assert (tmp_path / "new" / "heads" / "labels.onnx").exists()
    assert "measures" in open_head(tmp_path / "new", "labels").config  # type: ignore[union-attr]


def test_the_command_can_leave_trees_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from anyecg.cli import app

    asked: dict[str, bool] = {}
    monkeypatch.setattr("anyecg.training.finetune.finetune", lambda *_, trees, **__: asked.update(trees=trees))
    arguments = ["finetune", "nano", "--labels", "x.csv", "-o", str(tmp_path / "new")]
    assert CliRunner().invoke(app, [*arguments, "--no-trees"]).exit_code == 0
    assert asked == {"trees": False}
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert asked == {"trees": True}
