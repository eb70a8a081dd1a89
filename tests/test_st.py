"""ST levels of beats that were made with a known one."""

import numpy as np
import pytest
from scipy.special import expit

from anyecg.record import Record
from anyecg.signals import prepare
from anyecg.tasks.long import summarize
from anyecg.tasks.st import st_levels

FS = 300.0


def made(st_mv: tuple[float, ...], duration_s: float = 60.0, rr_s: float = 0.9) -> tuple[Record, np.ndarray]:
    """Return a record, a lead for each ST level, and its R peaks: P, QRS of 90 ms, a flat ST up to a T wave."""
    t = np.arange(round(duration_s * FS)) / FS
    peaks_s = np.arange(0.5, duration_s - 0.6, rr_s)
    rows = []
    for level in st_mv:
        row = np.zeros_like(t)
        for r in peaks_s:
            for delay, height, width in (
                (-0.17, 0.12, 0.02),
                (-0.025, -0.1, 0.006),
                (0, 1.2, 0.009),
                (0.03, -0.2, 0.007),
            ):
                row += height * np.exp(-0.5 * ((t - r - delay) / width) ** 2)
            rise = expit((t - r - 0.045) / 0.002)
            fall = expit(-(t - r - 0.30) / 0.02)
            row += level * rise * fall + 0.25 * np.exp(-0.5 * ((t - r - 0.30) / 0.035) ** 2)
        rows.append(row)
    return Record(np.array(rows), FS, tuple(f"V{i + 1}" for i in range(len(st_mv)))), peaks_s


def test_the_level_is_found() -> None:
    levels = (0.0, 0.2, -0.15, 0.05)
    record, peaks_s = made(levels)
    found = st_levels(record, peaks_s)
    assert found.dtype == np.float32 and found.shape == (4,)
    np.testing.assert_allclose(found, levels, atol=0.015)


def test_preparation_keeps_it() -> None:
    levels = (0.0, 0.2, -0.2)
    record, peaks_s = made(levels)
    wander = 0.5 * np.sin(2 * np.pi * 0.2 * np.arange(record.n_samples) / FS)
    found = st_levels(prepare(record.with_(signal=record.signal + wander)), peaks_s)
    np.testing.assert_allclose(found, levels, atol=0.03)


def test_noise_and_a_third_of_strange_beats_hardly_move_it() -> None:
    record, peaks_s = made((0.15,))
    rng = np.random.default_rng(0)
    signal = record.signal + 0.05 * rng.standard_normal(record.signal.shape)
    for r in peaks_s[::3]:  # wide and upside down
        at = slice(round((r - 0.1) * FS), round((r + 0.35) * FS))
        signal[:, at] = -1.5 * np.hanning(at.stop - at.start)
    assert st_levels(record.with_(signal=signal), peaks_s)[0] == pytest.approx(0.15, abs=0.04)


def test_what_cannot_be_measured_is_unknown() -> None:
    record, peaks_s = made((0.1, 0.1))
    signal = record.signal.copy()
    signal[1] = np.nan
    found = st_levels(record.with_(signal=signal), peaks_s)
    assert np.isfinite(found[0]) and np.isnan(found[1])
    assert np.isnan(st_levels(record, peaks_s[:4])).all() and np.isfinite(st_levels(record, peaks_s[:5])).all()
    assert np.isnan(st_levels(record, np.empty(0))).all()
    assert np.isnan(st_levels(record.with_(gain_known=False), peaks_s)).all()
    assert np.isnan(st_levels(record.with_(signal=record.signal[:, :60]), np.array([0.1]))).all()


def test_a_gap_costs_only_the_beats_in_it() -> None:
    record, peaks_s = made((0.1,))
    signal = record.signal.copy()
    signal[:, round(20 * FS) : round(30 * FS)] = np.nan
    assert st_levels(record.with_(signal=signal), peaks_s)[0] == pytest.approx(0.1, abs=0.015)


def test_hours_have_the_mean_of_their_minutes() -> None:
    st_mv = np.full((2, 90), 0.1)
    st_mv[0, 60:] = -0.2
    st_mv[1, :60] = np.nan
    quality = np.tile(np.linspace(0, 1, 90), (2, 1))
    summary = summarize(np.arange(0.5, 5400, 0.8), 5400.0, leads=("II", "V5"), st_mv=st_mv, quality=quality)
    first, second = summary.hours
    assert first.st_mean_mv == {"II": pytest.approx(0.1), "V5": None}
    assert second.st_mean_mv == {"II": pytest.approx(-0.2), "V5": pytest.approx(0.1)}
    assert first.quality_mean == pytest.approx(quality[:, :60].mean())
    plain = summary.to_dict()
    assert plain["st_mv"]["V5"][0] is None and plain["st_mv"]["II"][89] == -0.2 and len(plain["quality"]["II"]) == 90
    with pytest.raises(ValueError, match="2 leads"):
        summarize(np.arange(0.5, 60, 0.8), 60.0, leads=("II", "V5"), st_mv=np.zeros((1, 1)))
