"""Record heads against a public label table: what is measured, and by which splits."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import anyecg
from anyecg.training import card, evaluate, labelled

N = 60
CODES = ("NORM", "MI", "STTC", "CD", "HYP")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict:
    """What is found of made-up 12-lead records whose scores are right: for mechanics, never for claims."""
    rng = np.random.default_rng(0)
    model = anyecg.load("nano", threads=1)
    scores = rng.uniform(0.02, 0.98, (N, len(model.head("diagnosis").labels)))
    known = {e: dict(zip(CODES, (rng.random(5) < scores[e, :5]).astype(int), strict=True)) for e in range(N)}
    splits = tmp_path / "mine.csv"

    def table(data: Path, splits_csv: Path) -> list[dict[str, str]]:
        assert splits_csv == splits
        told = {label.code: "" for label in model.head("diagnosis").labels}
        return [
            {"file": f"db/{e}.hea", "split": "test", **told, **{code: str(x) for code, x in known[e].items()}}
            for e in range(N)
        ]

    entries = [
        SimpleNamespace(database="db", record=str(e), patient=str(e), leads=["I"] * 12, sex="male", age=50.0)
        for e in range(N)
    ]
    monkeypatch.setattr(labelled, "LABEL_TABLES", {"diagnosis": table})
    monkeypatch.setattr(labelled, "Corpus", lambda folder, split: SimpleNamespace(entries=entries))
    monkeypatch.setattr(labelled, "_scores", lambda _model, _head, _corpus, entry, _leads: scores[int(entry.record)])
    monkeypatch.setattr(evaluate, "prepare_databases", lambda *_: tmp_path)
    return evaluate.evaluate("heads", model.checkpoint.folder, tmp_path, splits, lambda _: None)


def test_each_label_of_each_lead_set_is_measured_by_the_splits_that_were_named(measured: dict) -> None:
    head = measured["heads"]["diagnosis"]
    assert head["n_records"] == head["n_patients"] == N
    assert list(head["by_leads"]) == list(labelled.LEAD_SETS)
    for part in head["by_leads"].values():
        assert part["macro_auroc"]["interval"][0] < part["macro_auroc"]["value"] < part["macro_auroc"]["interval"][1]
        assert [row["n"] for row in part["labels"]][:5] == [N] * 5


def test_only_what_the_card_prints_is_set_beside_what_chance_would_show(measured: dict) -> None:
    first, *others = measured["heads"]["diagnosis"]["by_leads"].values()
    for row in first["labels"][:5]:
        mean, high = row["calibration_error_by_chance"]
        assert 0 < mean < high and f"{mean:.3f} / {high:.3f}" in card.tables("heads", measured)
    assert first["labels"][-1]["calibration_error_by_chance"] is None  # no record knows it
    assert not any("calibration_error_by_chance" in row for part in others for row in part["labels"])
