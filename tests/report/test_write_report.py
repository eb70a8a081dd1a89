import json
import os
from dataclasses import replace

import numpy as np
import pytest

from anyecg.errors import WriteError
from anyecg.report import summary, write_report
from anyecg.report.text import sparkline
from anyecg.result import DISCLAIMER


def test_json_is_to_dict(twelve, tmp_path):
    path = write_report(twelve, tmp_path / "a.json")
    assert json.loads(path.read_text()) == json.loads(json.dumps(twelve.to_dict()))


def test_html_is_utf8_whatever_the_id(twelve, tmp_path):
    odd = replace(twelve, record=twelve.record.with_(id="Süd\udce4 心電図"))
    words = write_report(odd, tmp_path / "a.HTML").read_text(encoding="utf-8")
    assert "Süd? 心電図" in words


def test_png_is_the_paper_at_200_dpi(twelve, tmp_path):
    content = write_report(twelve, tmp_path / "a.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width = int.from_bytes(content[16:20], "big")
    assert width == pytest.approx(273 / 25.4 * 200, abs=2)


@pytest.mark.parametrize("name", ["a.pdf", "a", "a.htm"])
def test_other_suffixes_are_refused_with_the_list(twelve, tmp_path, name):
    with pytest.raises(ValueError, match=r"\.html, \.png, \.json"):
        write_report(twelve, tmp_path / name)


def test_nothing_is_overwritten_without_force(twelve, tmp_path):
    path = tmp_path / "a.json"
    path.write_text("mine")
    with pytest.raises(WriteError, match="exists already"):
        write_report(twelve, path)
    assert path.read_text() == "mine"
    write_report(twelve, path, force=True)
    assert path.read_text() != "mine"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_missing_folder_is_a_write_error(twelve, tmp_path):
    with pytest.raises(WriteError, match="cannot be written"):
        write_report(twelve, tmp_path / "no" / "a.json")


def test_a_folder_is_no_file(twelve, tmp_path):
    (tmp_path / "a.html").mkdir()
    with pytest.raises(WriteError, match="is a folder"):
        write_report(twelve, tmp_path / "a.html", force=True)


def test_failure_leaves_nothing_behind(twelve, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(WriteError, match="No space left"):
        write_report(twelve, tmp_path / "a.json")
    assert os.listdir(tmp_path) == []


def test_summary_says_what_matters(twelve):
    words = summary(twelve)
    for part in (
        "synthetic",
        "12 leads",
        f"{twelve.rhythm.hr_bpm:.0f} bpm",
        "SDNN",
        "87 %",
        "usable",
        "nano",
        "sinus rhythm",
        DISCLAIMER,
    ):
        assert part in words
    assert 8 <= len(words.splitlines()) <= 25


def test_summary_lists_troubled_leads(make):
    assert "gaps" in summary(make(("I", "II"), missing=("I",)))


def test_summary_carries_no_control_characters(twelve):
    evil = replace(twelve, record=twelve.record.with_(id="a\x1b[2Jb"))
    assert "\x1b" not in summary(evil)


def test_sparkline_follows_the_beats(twelve):
    line = sparkline(twelve, "II")
    assert len(line) == 60
    assert line.count("█") + line.count("▇") >= 4
    assert set(line) <= set("▁▂▃▄▅▆▇█")


def test_what_filters_leave_of_a_constant_is_drawn_flat(twelve):
    dust = np.random.default_rng(0).normal(0, 1e-7, twelve.prepared.signal.shape).astype(np.float32)
    flat = replace(twelve, prepared=twelve.prepared.with_(signal=dust))
    assert set(sparkline(flat, "II")) == {"▁"}
