"""Streams: the same result for any chunks, a provisional one at any time, and nothing lost when a run is stopped."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import anyecg
from anyecg import analysis, saved, stream
from anyecg.engine import Model
from anyecg.errors import ReadError, SignalError
from anyecg.pieces import PIECE_S
from anyecg.readers import read
from anyecg.record import Record
from anyecg.report import write_report
from anyecg.result import Result
from anyecg.seen import FULL_PIECES
from anyecg.stream import Stream
from anyecg.writers import write


@pytest.fixture(scope="module")
def model() -> Model:
    return anyecg.load("nano", threads=1)


@pytest.fixture(scope="module")
def holter(toy_record: Record) -> Record:
    """Eleven minutes and a bit, at a quarter of the effort: 180 Hz. A minute and a half of it is not recorded."""
    signal = np.tile(toy_record.signal[:, ::2], 3)[:, : 11 * 60 * 180 + 500].copy()
    signal[:, 200 * 180 : 290 * 180] = np.nan
    return toy_record.with_(signal=signal, fs=180.0)


@pytest.fixture(scope="module")
def in_one_pass(holter: Record, model: Model) -> Result:
    return anyecg.analyze(holter, model)


def same(one: Result, other: Result) -> None:
    assert np.array_equal(one.tokens.codes, other.tokens.codes)
    assert np.array_equal(one.tokens.scale_mv, other.tokens.scale_mv)
    assert np.array_equal(one.rhythm.r_peaks_s, other.rhythm.r_peaks_s)
    assert one.beats == other.beats
    assert one.findings == other.findings
    assert one.anomaly == other.anomaly
    assert np.array_equal(one.surprise, other.surprise, equal_nan=True)
    assert one.to_dict()["long"] == other.to_dict()["long"]


@pytest.mark.parametrize("chunk_s", [0.9, 30.0, 400.0])
def test_a_result_does_not_depend_on_the_chunks(
    holter: Record, in_one_pass: Result, model: Model, chunk_s: float
) -> None:
    found = Stream(holter, model)
    n = round(chunk_s * holter.fs)
    for k in range(0, holter.n_samples, n):
        found.feed(holter.signal[:, k : k + n])
    same(found.result(), in_one_pass)


def test_a_result_does_not_depend_on_the_cores(holter: Record, in_one_pass: Result) -> None:
    same(anyecg.analyze(holter, anyecg.load("nano", threads=3)), in_one_pass)


def test_codes_are_those_of_the_model_alone(holter: Record, in_one_pass: Result, model: Model) -> None:
    tokens = model.tokenize(holter)
    assert np.array_equal(tokens.codes, in_one_pass.tokens.codes)
    assert np.array_equal(tokens.valid, in_one_pass.tokens.valid)
    # the first ten minutes are looked at exactly, what comes later fast
    n = round(FULL_PIECES * PIECE_S / tokens.grid.fragment_s)
    later = replace(
        tokens,
        codes=tokens.codes[:, n:],
        valid=tokens.valid[:, n:],
        scale_mv=tokens.scale_mv[n // tokens.grid.block_fragments :],
        n_samples=tokens.n_samples - n * tokens.grid.fragment_samples,
    )
    exact, fast = model.embed(tokens).per_fragment, model.embed(later, fast=True).per_fragment
    known = np.concatenate([exact[:, :n], fast], axis=1)[tokens.valid]
    assert in_one_pass.embedding == pytest.approx(known.mean(axis=0), abs=1e-4)
    assert np.corrcoef(in_one_pass.embedding, exact[tokens.valid].mean(axis=0))[0, 1] > 0.9999


def test_a_result_at_any_time_changes_nothing(holter: Record, in_one_pass: Result, model: Model) -> None:
    found = Stream(holter, model)
    n = round(70 * holter.fs)
    for k in range(0, holter.n_samples, n):
        found.feed(holter.signal[:, k : k + n])
        so_far = found.result()
        assert so_far.duration_s == pytest.approx(min((k + n), holter.n_samples) / holter.fs)
        # what is behind the last complete piece may change, what is before it may not
        inside = so_far.rhythm.r_peaks_s[so_far.rhythm.r_peaks_s < found.analysed_s - 1]
        assert np.array_equal(inside, in_one_pass.rhythm.r_peaks_s[: len(inside)])
    same(found.result(), in_one_pass)


def test_time_without_signal_counts_for_nothing(in_one_pass: Result) -> None:
    overview = in_one_pass.overview
    assert overview is not None
    assert overview.duration_s - overview.usable_s == pytest.approx(90.0, abs=1.0)
    peaks = in_one_pass.rhythm.r_peaks_s
    assert not ((peaks > 200.5) & (peaks < 289.5)).any()
    assert "PAUSE" not in {f.code for f in in_one_pass.findings if 195 < f.start_s < 295}


def test_nothing_recorded_is_an_error(holter: Record, model: Model) -> None:
    empty = Stream(holter, model)
    with pytest.raises(SignalError):
        empty.result()
    empty.feed(np.full((1, 400 * 180), np.nan))
    with pytest.raises(SignalError, match="recorded"):
        empty.result()


def test_surprise_is_asked_sparingly_after_ten_minutes(in_one_pass: Result) -> None:
    known = np.isfinite(in_one_pass.surprise[0])
    valid = in_one_pass.tokens.valid[0]
    assert np.array_equal(known[:1200], valid[:1200])
    assert 0 < known[1200:].sum() < valid[1200:].sum()


def test_beats_at_the_borders_of_pieces_count_once(holter: Record, in_one_pass: Result) -> None:
    rr_s = np.diff(in_one_pass.rhythm.r_peaks_s)
    assert rr_s.min() > 0.2
    for border in range(60, 660, 60):
        if not 190 < border < 300:
            near = in_one_pass.rhythm.r_peaks_s[np.abs(in_one_pass.rhythm.r_peaks_s - border) < 4]
            assert np.diff(near).max() < 2.5  # none is lost: the longest pause of this record is shorter


# -- files ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_file(holter: Record, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "holter.hea"
    write(holter, path)
    return path


def test_a_long_file_is_read_in_stretches(long_file: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    found = anyecg.analyze(long_file, model)
    assert found.record.n_samples == 0 and found.duration_s == pytest.approx(11 * 60 + 500 / 180)
    same(found, anyecg.analyze(read(long_file), model))


def test_excerpts_show_what_was_found(long_file: Path, model: Model, tmp_path: Path) -> None:
    found = anyecg.analyze(long_file, model)
    assert found.overview is not None and len(found.excerpts) == len(found.overview.strips) > 0
    whole = anyecg.analyze(read(long_file), model)
    for strip, shown in zip(found.overview.strips, found.excerpts, strict=True):
        start = round(shown.record.start_s * 300)
        assert shown.record.start_s <= strip.start_s and strip.end_s <= shown.record.start_s + shown.duration_s + 1e-6
        there = slice(start, start + shown.prepared.n_samples)
        measured, decoded = whole.prepared.signal[:, there], whole.decoded.signal[:, there]
        assert np.nanmax(np.abs(shown.prepared.signal - measured)) < 0.1
        assert np.allclose(shown.decoded.signal, decoded, atol=1e-3, equal_nan=True)
    page = write_report(found, tmp_path / "long.html").read_text()
    assert page.count("<details") == len(found.excerpts)
    assert write_report(found, tmp_path / "long.png").stat().st_size > 10_000


class Stopped(Exception):
    """Stands for Ctrl-C, a power cut, a killed process."""


@pytest.fixture
def saves_each_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BEAT_PIECES", 1)
    monkeypatch.setattr(stream, "SEGMENT_PIECES", 2)
    monkeypatch.setattr(saved, "EVERY_S", 0.0)


@pytest.mark.usefixtures("saves_each_minute")
def test_a_stopped_analysis_goes_on(
    long_file: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = analysis.analyze_file(long_file, model)
    state = tmp_path / "state"
    done: list[float] = []

    def stop(seconds: float) -> None:
        done.append(seconds)
        raise Stopped

    with pytest.raises(Stopped):
        analysis.analyze_file(long_file, model, state=state, progress=stop)
    assert state.is_file()
    fed: list[int] = []
    feed = Stream.feed
    monkeypatch.setattr(Stream, "feed", lambda self, samples: (fed.append(samples.shape[1]), feed(self, samples))[1])
    told: list[str] = []
    again = analysis.analyze_file(long_file, model, state=state, tell=told.append)
    assert len(told) == 1 and "goes on" in told[0]
    assert sum(fed) < 0.8 * whole.duration_s * 180  # it did not begin anew
    same(again, whole)
    assert not state.exists()


def test_a_state_of_something_else_is_not_used(
    long_file: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    state.write_bytes(b"not a state")
    same(analysis.analyze_file(long_file, model, state=state), anyecg.analyze(read(long_file), model))
    other = saved.SavedState(tmp_path / "other", {"path": "a"})
    other.save({"numbers": np.arange(3)})
    assert saved.SavedState(tmp_path / "other", {"path": "b"}).load() is None
    loaded = saved.SavedState(tmp_path / "other", {"path": "a"}).load()
    assert loaded is not None and loaded["numbers"].tolist() == [0, 1, 2]


@pytest.mark.usefixtures("saves_each_minute")
def test_a_full_disk_does_not_end_an_analysis(long_file: Path, model: Model, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    state = tmp_path / "a file" / "state"
    told: list[str] = []
    result = analysis.analyze_file(long_file, model, state=state, tell=told.append)
    assert result.duration_s == pytest.approx(read(long_file).duration_s)
    assert told == [f"{state}: File exists; the analysis goes on, but would begin anew if it were stopped"]


def test_what_can_be_read_is_analysed(long_file: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    from anyecg import source

    def damaged(*args: object, **kwargs: object):  # type: ignore[no-untyped-def]
        yield read(long_file, start_s=0, end_s=300)
        yield read(long_file, start_s=300, end_s=600)
        raise ReadError("holter: cannot be read from 600.0 s on (damage), expected a whole file. Copy it again.")

    monkeypatch.setattr(source, "stretches", damaged)
    found = anyecg.analyze(long_file, model)
    assert found.duration_s == pytest.approx(600.0)
    assert any("from 600.0 s on" in w for w in found.warnings)


def test_a_growing_file_is_followed(holter: Record, in_one_pass: Result, model: Model, tmp_path: Path) -> None:
    import threading
    import time

    write(holter, tmp_path / "holter.hea")
    whole = (tmp_path / "holter.dat").read_bytes()
    n = 2 * 180  # 16 bits, one lead: bytes of a second
    (tmp_path / "holter.dat").write_bytes(whole[: 8 * n])

    def record() -> None:
        with (tmp_path / "holter.dat").open("ab") as file:
            for begin in range(8 * n, len(whole), 150 * n):
                time.sleep(0.3)
                file.write(whole[begin : begin + 150 * n])
                file.flush()

    began = time.monotonic()
    thread = threading.Thread(target=record)
    thread.start()
    found = []
    for result in analysis.follow_file(tmp_path / "holter.hea", model, every_s=0.1, idle_s=3.0):
        if not found:
            assert time.monotonic() - began < 5.0  # the first eight seconds are told about at once
            assert result.duration_s < 700
        found.append(result)
    thread.join()
    assert len(found) > 2
    assert [r.duration_s for r in found] == sorted(r.duration_s for r in found)
    # WFDB rounds to its resolution: compare with the file, not with the record it was written from
    same(found[-1], anyecg.analyze(read(tmp_path / "holter.hea"), model))
    assert found[-1].excerpts
