"""Tables read back with pyarrow, annotations with wfdb: what is written is what was found."""

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import wfdb

from anyecg.record import Annotation
from anyecg.report.overview import day_picture, moving_most, overview_section
from anyecg.report.tables import annotations, beats_table, hours_table, minutes_table, rhythm_changes
from anyecg.result import BEAT_CLASSES, Beats, Result
from anyecg.tasks.long import summarize


def rows(content: bytes) -> list[dict[str, object]]:
    return pq.read_table(io.BytesIO(content)).to_pylist()


@pytest.fixture(scope="module")
def day(make: Callable[..., Result]) -> Result:
    """A Result of nearly 26 hours with 3 leads of ST and quality, of which ten seconds of signal are kept."""
    short = make(("II", "V1", "V5"))
    rng = np.random.default_rng(0)
    times_s = np.cumsum(rng.uniform(0.7, 0.9, 117_000))
    duration_s = float(np.ceil(times_s[-1]))
    classes = np.where(rng.random(len(times_s)) < 0.01, "V", "N")
    n_minutes = -(-int(duration_s) // 60)
    st_mv = np.zeros((3, n_minutes), dtype=np.float32)
    st_mv[1, 600:700] = 0.25
    st_mv[2, 900:1000] = np.nan
    episodes = (
        Annotation(1000.0, 5000.0, "rhythm", "AFIB", score=0.9),
        Annotation(2000.0, 2004.0, "rhythm", "VT"),
        Annotation(6000.0, 6003.0, "rhythm", "PAUSE"),
    )
    overview = summarize(
        times_s,
        duration_s,
        classes=classes,
        episodes=episodes,
        surprise_bits=rng.gamma(3, 1, -(-int(duration_s) // 10)).astype(np.float32),
        leads=("II", "V1", "V5"),
        st_mv=st_mv,
        quality=np.full((3, n_minutes), 0.8, dtype=np.float32),
    )
    numbers = np.array([BEAT_CLASSES.index(code) for code in classes], dtype=np.uint8)
    beats = Beats(times_s, numbers, np.full(len(times_s), 0.75, dtype=np.float32))
    rhythm = replace(short.rhythm, r_peaks_s=times_s)
    return replace(short, beats=beats, rhythm=rhythm, overview=overview, duration_s=duration_s)


def test_beats_are_rows(twelve: Result) -> None:
    found = rows(beats_table(twelve))
    assert [row["time_s"] for row in found] == twelve.rhythm.r_peaks_s.tolist()
    assert [row["class"] for row in found] == [beat.code for beat in twelve.beats]
    assert found[0]["rr_ms"] is None and found[0]["probability"] == pytest.approx(0.9)
    assert found[1]["rr_ms"] == pytest.approx(1000 * np.diff(twelve.rhythm.r_peaks_s)[0], rel=1e-6)
    bare = rows(beats_table(replace(twelve, beats=Beats())))
    assert len(bare) == len(found) and bare[0]["class"] is None and bare[0]["probability"] is None
    assert rows(beats_table(replace(twelve, beats=Beats(), rhythm=replace(twelve.rhythm, r_peaks_s=np.empty(0))))) == []


def test_hours_are_rows(day: Result) -> None:
    assert day.overview is not None
    found = rows(hours_table(day))
    assert len(found) == 26 == len(day.overview.hours)
    for row, hour in zip(found, day.overview.hours, strict=True):
        assert (row["start_s"], row["n_beats"], row["n_v"]) == (hour.start_s, hour.n_beats, hour.n_v)
        assert row["hr_mean_bpm"] == hour.hr_mean_bpm and row["quality_mean"] == pytest.approx(0.8)
    assert found[10]["st_mean_mv_V1"] == pytest.approx(0.25) and found[3]["st_mean_mv_V1"] == 0
    with pytest.raises(ValueError, match="no overview"):
        hours_table(replace(day, overview=None))


def test_minutes_are_rows(day: Result, twelve: Result) -> None:
    assert day.overview is not None
    found = pq.read_table(io.BytesIO(minutes_table(day)))
    assert found.column_names[:3] == ["start_s", "hr_bpm", "surprise_bits"]
    assert found.num_rows == len(day.overview.hr_trend_bpm)
    assert found["st_mv_V1"][650].as_py() == pytest.approx(0.25) and found["st_mv_V5"][950].as_py() is None
    assert found["surprise_bits"][2].as_py() == pytest.approx(float(day.overview.surprise_bits[12:18].max()))
    assert found["quality_II"][0].as_py() == pytest.approx(0.8)
    assert len(rows(minutes_table(twelve))) == 1  # without ST, quality, or surprise


def test_annotations_are_wfdb(day: Result, tmp_path: Path) -> None:
    (tmp_path / "day.atr").write_bytes(annotations(day))
    read = wfdb.rdann(str(tmp_path / "day"), "atr")
    assert read.fs == day.record.fs
    beats = np.array(read.symbol) != "+"
    np.testing.assert_allclose(read.sample[beats] / read.fs, day.rhythm.r_peaks_s, atol=0.5 / read.fs)
    assert [s for s in read.symbol if s != "+"] == [beat.code for beat in day.beats]
    told = [(s / read.fs, a.strip("\x00")) for s, a in zip(read.sample, read.aux_note, strict=True) if a]
    assert told == [(0, "(N"), (1000, "(AFIB"), (2000, "(VT"), (2004, "(AFIB"), (5000, "(N")]


def test_annotations_without_classes_or_beats(twelve: Result, tmp_path: Path) -> None:
    (tmp_path / "bare.atr").write_bytes(annotations(replace(twelve, beats=Beats(), overview=None)))
    assert set(wfdb.rdann(str(tmp_path / "bare"), "atr").symbol) == {"+", "Q"}
    none = replace(twelve, beats=Beats(), rhythm=replace(twelve.rhythm, r_peaks_s=np.empty(0)), overview=None)
    (tmp_path / "none.atr").write_bytes(annotations(none))
    assert wfdb.rdann(str(tmp_path / "none"), "atr").symbol == ["+"]


def test_the_first_rhythm_of_the_list_is_in_force() -> None:
    def last(code: str, start_s: float, end_s: float) -> Annotation:
        return Annotation(start_s, end_s, "rhythm", code)

    assert rhythm_changes(()) == [(0.0, "N")]
    assert rhythm_changes((last("AFIB", 0, 9), last("VF", 9, 12), last("TACHY", 1, 3))) == [
        *((0, "AFIB"), (9, "VFL"), (12, "N")),
    ]


def test_the_picture_of_a_day(day: Result) -> None:
    assert day.overview is not None
    picture = day_picture(day.overview)
    assert moving_most(day.overview.st_mv) == 1 and "ST V1" in picture
    assert picture.count('class="fibrillation"') == 1 and "24:00:00" in picture
    assert len(picture) < 100_000
    x, width = map(float, re.findall(r'class="fibrillation" d="M([\d.]+) [\d.]+h([\d.]+)', picture)[0])
    assert x == pytest.approx(22 + 250 * 1000 / day.duration_s, abs=0.02)
    assert width == pytest.approx(250 * 4000 / day.duration_s, abs=0.02)


def test_the_section_lists_st_hrv_and_quality(day: Result, twelve: Result) -> None:
    page = overview_section(day)
    assert "+0.25 mV from 10:00:00" in page and "DFA alpha 1" in page and '<th scope="col">Quality</th>' in page
    assert "Heart-rate variability" not in overview_section(twelve)
    assert moving_most(np.empty((0, 0))) is None and moving_most(np.full((2, 5), 1.0)) is None


def test_a_trend_of_nothing_is_drawn() -> None:
    empty = summarize(np.array([1.0, 2.0]), 1200.0, leads=("II",), st_mv=np.full((1, 20), np.nan))
    assert "heart rate" in day_picture(empty) and "NaN" not in day_picture(empty)
