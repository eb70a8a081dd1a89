import numpy as np
import pytest

from anyecg.beats import find_beats
from anyecg.record import Record
from anyecg.result import LeadQuality, Quality
from anyecg.signals import prepare

FS = 300.0
BEATS = set("NLRejAaJSVEFPfQ/!")


def beat_times(duration_s: float, rr_s: float = 0.8) -> np.ndarray:
    return np.arange(0.5, duration_s - 0.1, rr_s)


def draw(
    times_s: np.ndarray, duration_s: float, height_mv: float = 1.0, noise_mv: float = 0.01, seed: int = 0
) -> np.ndarray:
    t = np.arange(round(duration_s * FS)) / FS
    lead = noise_mv * np.random.default_rng(seed).standard_normal(len(t))
    for beat in times_s:
        for delay, height, width in ((-0.16, 0.1, 0.02), (0, 1.0, 0.011), (0.25, 0.2, 0.045)):
            lead += height_mv * height * np.exp(-0.5 * ((t - beat - delay) / width) ** 2)
    return lead


def record(*leads: np.ndarray, **fields: object) -> Record:
    return Record(np.stack(leads), FS, ("II", "V1", "V2", "V5")[: len(leads)], **fields)


def test_every_beat_to_the_millisecond():
    times = beat_times(30)
    rhythm = find_beats(record(draw(times, 30)))
    np.testing.assert_allclose(rhythm.r_peaks_s, times, atol=0.003)
    assert rhythm.lead == "II"


def test_an_inverted_lead_gives_the_same_times():
    times = beat_times(30)
    rhythm = find_beats(record(-draw(times, 30)))
    np.testing.assert_allclose(rhythm.r_peaks_s, times, atol=0.003)


def test_rr_statistics():
    rr_s = np.tile([0.8, 0.9], 20)
    times = 0.5 + np.concatenate(([0], np.cumsum(rr_s)))
    rhythm = find_beats(record(draw(times, times[-1] + 0.5, noise_mv=0.0)))
    assert rhythm.rr_mean_ms == pytest.approx(850, abs=1)
    assert rhythm.sdnn_ms == pytest.approx(np.std(rr_s * 1000, ddof=1), abs=1)
    assert rhythm.rmssd_ms == pytest.approx(100, abs=1)
    assert rhythm.hr_bpm == pytest.approx(60 / 0.85, abs=4)


@pytest.mark.parametrize("rr_s", [0.33, 0.5, 1.0, 1.5])
def test_heart_rates(rr_s):
    assert find_beats(record(draw(beat_times(30, rr_s), 30))).hr_bpm == pytest.approx(60 / rr_s, rel=0.01)


@pytest.mark.parametrize("lead", [np.zeros(3000), np.full(3000, np.nan), np.full(3000, 5.0), np.zeros(100)])
def test_no_signal_no_beats(lead):
    rhythm = find_beats(record(lead))
    assert len(rhythm.r_peaks_s) == 0
    assert (rhythm.hr_bpm, rhythm.rr_mean_ms, rhythm.sdnn_ms, rhythm.rmssd_ms) == (None, None, None, None)


def test_one_microvolt_of_noise_is_no_heart():
    assert len(find_beats(record(1e-3 * np.random.default_rng(0).standard_normal(3000))).r_peaks_s) == 0


def test_unknown_gain_is_no_obstacle():
    times = beat_times(20)
    rhythm = find_beats(record(1e-4 * draw(times, 20), gain_known=False))
    np.testing.assert_allclose(rhythm.r_peaks_s, times, atol=0.003)


def test_no_beat_inside_a_gap_and_no_rr_across_it():
    times = beat_times(30)
    lead = draw(times, 30)
    lead[round(10.2 * FS) : round(11.9 * FS)] = np.nan  # hides two beats: one RR of 2.4 s if it were counted
    rhythm = find_beats(record(lead))
    assert not ((rhythm.r_peaks_s > 10.2) & (rhythm.r_peaks_s < 11.9)).any()
    assert len(rhythm.r_peaks_s) == len(times) - 2
    assert rhythm.rr_mean_ms == pytest.approx(800, abs=2)
    assert rhythm.sdnn_ms < 5


def test_a_short_gap_is_bridged():
    times = beat_times(30)
    lead = draw(times, 30)
    lead[round(10.2 * FS) : round(10.3 * FS)] = np.nan
    assert len(find_beats(record(lead)).r_peaks_s) == len(times)


def test_a_missed_beat_is_not_an_rr_interval():
    times = np.concatenate([beat_times(10), beat_times(10) + 14])
    rhythm = find_beats(record(draw(times, 24)))
    assert rhythm.rr_mean_ms == pytest.approx(800, abs=2)


def test_two_of_three_leads_outvote_a_noisy_one():
    times = beat_times(30)
    noisy = draw(times, 30)
    noisy[1000:1100] += 3 * np.sin(np.arange(100))
    rhythm = find_beats(record(draw(times, 30, seed=1), noisy, draw(times, 30, 0.6, seed=2)))
    np.testing.assert_allclose(rhythm.r_peaks_s, times, atol=0.01)


def test_another_lead_takes_over_where_the_best_is_missing():
    times = beat_times(30)
    best = draw(times, 30, 2.0)
    best[: round(15.0 * FS)] = np.nan
    rhythm = find_beats(record(best, draw(times, 30, 0.5, noise_mv=0.02)))
    np.testing.assert_allclose(rhythm.r_peaks_s, times, atol=0.01)


def test_quality_keeps_a_disabled_lead_from_voting():
    times = beat_times(30)
    artefact = draw(times + 0.3, 30, 3.0)
    both = record(artefact, draw(times, 30, 0.5, noise_mv=0.02))
    quality = Quality(True, {"II": LeadQuality(0.0, ("lead off",)), "V1": LeadQuality(0.9)})
    assert find_beats(both).lead == "II"
    rhythm = find_beats(both, quality)
    assert rhythm.lead == "V1"
    np.testing.assert_allclose(rhythm.r_peaks_s, times, atol=0.01)


def test_small_beats_among_tall_ones_are_found():
    times = beat_times(60)
    tall = np.zeros(len(times), bool)
    tall[3::4] = True
    lead = draw(times[~tall], 60, 0.5) + draw(times[tall], 60, 2.5, seed=1)
    rhythm = find_beats(record(lead))
    np.testing.assert_allclose(rhythm.r_peaks_s, times, atol=0.01)


def sensitivity_and_ppv(found_s: np.ndarray, true_s: np.ndarray, within_s: float = 0.15) -> tuple[float, float]:
    """Match beats one to one, in time order, as EC57 does."""
    hits = i = k = 0
    while i < len(found_s) and k < len(true_s):
        apart = found_s[i] - true_s[k]
        if abs(apart) <= within_s:
            hits, i, k = hits + 1, i + 1, k + 1
        elif apart < 0:
            i += 1
        else:
            k += 1
    return hits / len(true_s), hits / max(len(found_s), 1)


@pytest.mark.data
@pytest.mark.filterwarnings("ignore:The inplace keyword")  # pandas, called by wfdb
@pytest.mark.parametrize(
    ("name", "least_se", "least_ppv"),
    [("101", 0.998, 0.998), ("106", 0.985, 0.998), ("119", 0.98, 0.96), ("208", 0.96, 0.99), ("223", 0.998, 0.998)],
)
def test_mitdb_ds1(database, name, least_se, least_ppv):
    import wfdb

    source = wfdb.rdrecord(str(database("mitdb") / name))
    notes = wfdb.rdann(str(database("mitdb") / name), "atr")
    true_s = np.array([s for s, symbol in zip(notes.sample, notes.symbol, strict=True) if symbol in BEATS]) / 360
    rhythm = find_beats(prepare(Record(source.p_signal.T, source.fs, tuple(source.sig_name))))
    se, ppv = sensitivity_and_ppv(rhythm.r_peaks_s, true_s)
    assert se >= least_se and ppv >= least_ppv
