import numpy as np
import pytest

from anyecg.errors import SignalError
from anyecg.record import Record
from anyecg.signals import (
    Preparation,
    band_pass_taps,
    bridge_gaps,
    convolve_valid,
    find_mains,
    notch,
    odd_extension,
    power_spectrum,
    prepare,
    resample,
    resample_mask,
)

RATES = (49.7, 100.0, 257.3, 500.0, 1000.0, 2000.0)


def spikes(duration_s: float, fs: float, period_s: float = 0.8, height_mv: float = 1.0) -> np.ndarray:
    """QRS-like Gaussians, 12 ms wide, at 0.5 s and every period after it."""
    t = np.arange(round(duration_s * fs)) / fs
    phase = (t - 0.5 + period_s / 2) % period_s - period_s / 2
    return height_mv * np.exp(-0.5 * (phase / 0.012) ** 2)


def hum(duration_s: float, fs: float, hz: float, height_mv: float = 0.1) -> np.ndarray:
    return height_mv * np.sin(2 * np.pi * hz * np.arange(round(duration_s * fs)) / fs)


@pytest.mark.parametrize("fs", RATES)
def test_resample_keeps_a_sine_at_any_rate(fs):
    duration_s, hz = 8.0, 7.3
    sine = np.sin(2 * np.pi * hz * np.arange(round(duration_s * fs)) / fs)[None]
    resampled = resample(sine, fs, 300.0)
    assert resampled.shape == (1, round(sine.shape[1] * 300.0 / fs))
    expected = np.sin(2 * np.pi * hz * np.arange(resampled.shape[1]) / 300.0)
    inside = slice(300, -300)  # the last second is extrapolated
    shift_s = 1e-4  # the pad is not a whole number of output samples at every rate
    assert np.abs(resampled[0] - expected)[inside].max() < 2 * np.pi * hz * shift_s


def test_resample_to_its_own_rate_changes_nothing():
    signal = np.random.default_rng(0).standard_normal((2, 100))
    np.testing.assert_array_equal(resample(signal, 300.0, 300.0), signal)


def test_resample_mask_takes_the_nearest_sample():
    mask = np.array([[True, False, False, True]])
    np.testing.assert_array_equal(
        resample_mask(mask, 100.0, 200.0, 8), [[True, True, False, False, False, False, True, True]]
    )


@pytest.mark.parametrize(("fs", "low", "high"), [(300.0, 0.5, 75.0), (250.0, 0.67, 40.0)])
def test_band_pass_taps_are_those_of_scipy(fs, low, high):
    from scipy.signal import firwin

    taps = band_pass_taps(fs, low, high)
    np.testing.assert_allclose(taps, firwin(len(taps), [low, high], pass_zero=False, fs=fs), atol=1e-9)


@pytest.mark.parametrize("n", [1201, 1202, 8192, 8193, 30_000])
def test_convolution_piece_by_piece_is_that_of_one_piece(n):
    rng = np.random.default_rng(0)
    rows, taps = rng.standard_normal((2, n)), rng.standard_normal(1201)
    expected = np.stack([np.convolve(row, taps, mode="valid") for row in rows])
    np.testing.assert_allclose(convolve_valid(rows, taps), expected, atol=1e-9)


def test_power_spectrum_sums_to_the_mean_square():
    sine = 0.3 * np.sin(2 * np.pi * 10 * np.arange(1200) / 300.0)
    frequencies, power = power_spectrum(sine, 300.0)
    assert power.sum() == pytest.approx(np.mean(sine**2), rel=1e-3)
    assert frequencies[power.argmax()] == 10.0


@pytest.mark.parametrize("mains_hz", [50.0, 60.0])
def test_mains_is_found_and_removed(mains_hz):
    fs = 500.0
    clean = spikes(10, fs)
    noisy = clean + hum(10, fs, mains_hz)
    assert find_mains(noisy[None], fs) == mains_hz
    prepared = prepare(Record(noisy[None], fs, ("II",)))
    untouched = prepare(Record(noisy[None], fs, ("II",)), mains_hz=None)
    reference = prepare(Record(clean[None], fs, ("II",)), mains_hz=None)
    middle = slice(600, -600)
    left = np.abs(prepared.signal - reference.signal)[0, middle]
    assert np.sqrt(np.mean(left**2)) < 0.015
    assert np.sqrt(np.mean((untouched.signal - reference.signal)[0, middle] ** 2)) > 0.06


def test_no_mains_in_a_clean_record_nor_below_the_floor():
    fs = 500.0
    clean = spikes(10, fs)[None]
    assert find_mains(clean, fs) is None
    assert find_mains(clean * 0 + hum(10, fs, 50.0, 0.001), fs) is None


def test_mains_cannot_be_told_in_a_short_or_slow_record():
    assert find_mains(hum(1.5, 500.0, 50.0)[None], 500.0) is None
    assert find_mains(hum(10, 100.0, 40.0)[None], 100.0) is None


def test_louder_mains_frequency_wins():
    both = hum(10, 500.0, 50.0, 0.05) + hum(10, 500.0, 60.0, 0.2)
    assert find_mains(both[None], 500.0) == 60.0


def test_notch_spares_the_other_frequencies():
    wave = hum(10, 300.0, 30.0)[None]
    filtered = notch(wave, 300.0, 50.0)
    assert np.abs(filtered - wave)[:, 300:-300].max() < 0.02 * 0.1


@pytest.mark.parametrize("fs", [250.0, 360.0, 500.0, 1000.0])
def test_r_peaks_stay_where_they_are(fs):
    prepared = prepare(Record(spikes(10, fs)[None], fs, ("II",)))
    for beat in range(1, 11):
        time_s = 0.5 + 0.8 * beat
        start = round((time_s - 0.1) * 300)
        found = (start + prepared.signal[0, start : start + 60].argmax()) / 300
        assert abs(found - time_s) <= 1 / 300


def test_r_peak_height_survives():
    prepared = prepare(Record(spikes(10, 500.0)[None], 500.0, ("II",)))
    height = prepared.signal.max() - np.median(prepared.signal)
    assert height == pytest.approx(1.0, abs=0.06)


def test_gaps_stay_gaps_and_do_not_spread():
    signal = spikes(10, 500.0)[None].repeat(2, axis=0)
    signal[0, 2000:2600] = np.nan
    prepared = prepare(Record(signal, 500.0, ("I", "II")))
    missing = np.isnan(prepared.signal[0])
    assert missing[1201:1559].all()
    assert not missing[:1199].any() and not missing[1561:].any()
    assert np.isfinite(prepared.signal[1]).all()


def test_a_lead_that_was_never_recorded_stays_nan_and_harms_no_other():
    signal = spikes(10, 500.0)[None].repeat(2, axis=0)
    alone = prepare(Record(signal[1:], 500.0, ("II",)))
    signal[0] = np.nan
    prepared = prepare(Record(signal, 500.0, ("I", "II")))
    assert np.isnan(prepared.signal[0]).all()
    np.testing.assert_allclose(prepared.signal[1], alone.signal[0], atol=1e-6)


def test_a_flat_lead_becomes_zero():
    prepared = prepare(Record(np.full((1, 5000), 3.3), 500.0, ("II",)))
    assert np.abs(prepared.signal).max() < 1e-5


def test_offset_and_slow_wander_are_removed():
    t = np.arange(5000) / 500
    prepared = prepare(Record((120.0 + 2 * np.sin(2 * np.pi * 0.1 * t))[None], 500.0, ("II",)))
    assert np.abs(prepared.signal[0, 900:-900]).max() < 0.06


@pytest.mark.parametrize("gain", [0.01, 2.0, -1.0, 1000.0])
def test_gain_passes_through(gain):
    signal = spikes(10, 500.0)[None]
    once = prepare(Record(signal, 500.0, ("II",)), mains_hz=None)
    scaled = prepare(Record(gain * signal, 500.0, ("II",)), mains_hz=None)
    np.testing.assert_allclose(scaled.signal, gain * once.signal, atol=2e-6 * abs(gain))


def test_rate_and_source_rate_are_remembered():
    prepared = prepare(Record(spikes(10, 257.3)[None], 257.3, ("II",)), Preparation(fs_hz=250.0))
    assert (prepared.fs, prepared.source_fs, prepared.signal.dtype) == (250.0, 257.3, np.float32)
    again = prepare(prepared)
    assert (again.fs, again.source_fs) == (300.0, 257.3)


def test_too_short_a_record_is_refused():
    with pytest.raises(SignalError, match=r"r1: 0\.40 s of signal, expected at least 0\.5 s"):
        prepare(Record(np.zeros((1, 200)), 500.0, ("II",), id="r1"))


def test_the_shortest_record_passes():
    prepared = prepare(Record(spikes(0.5, 500.0)[None], 500.0, ("II",)))
    assert prepared.n_samples == 150
    assert np.isfinite(prepared.signal).all()


def test_a_record_without_any_sample_is_refused():
    with pytest.raises(SignalError, match="no lead has a recorded sample"):
        prepare(Record(np.full((2, 5000), np.nan), 500.0, ("I", "II")))


def test_bridge_gaps_draws_straight_lines():
    bridged = bridge_gaps(np.array([[np.nan, 1.0, np.nan, 3.0, np.nan], [np.nan] * 5], dtype=np.float32))
    np.testing.assert_array_equal(bridged, [[1, 1, 2, 3, 3], [0, 0, 0, 0, 0]])


def test_odd_extension_reflects_through_the_end_points():
    np.testing.assert_array_equal(odd_extension(np.array([[1.0, 2.0, 4.0]]), 2), [[-2, 0, 1, 2, 4, 6, 7]])
    np.testing.assert_array_equal(odd_extension(np.array([[5.0]]), 2), [[5, 5, 5, 5, 5]])


@pytest.mark.parametrize("rail_mv", [-80.0, 80.0, -40.0])
def test_a_lead_that_is_off_is_not_recorded(rail_mv):
    on = spikes(10, 500.0)
    off = np.full(5000, rail_mv)
    off[::100] += 0.1  # converters jitter at the rail
    alone = prepare(Record(on[None], 500.0, ("II",)))
    prepared = prepare(Record(np.stack([off, on]), 500.0, ("I", "II")))
    assert np.isnan(prepared.signal[0]).all()
    np.testing.assert_allclose(prepared.signal[1], alone.signal[0], atol=1e-6)
    assert prepared.warnings == ("leads off, at the converter's rail, taken as not recorded: I 10.0 s",)


def test_a_lead_that_comes_off_does_not_ring_into_what_was_recorded():
    signal = spikes(20, 500.0)[None]
    whole = prepare(Record(signal, 500.0, ("II",)))
    signal = signal.copy()
    signal[0, 5150:7777] = -80.0
    prepared = prepare(Record(signal, 500.0, ("II",)))
    missing = np.isnan(prepared.signal[0])
    assert missing[3091:4665].all()
    assert missing.sum() == pytest.approx(2627 * 300 / 500, abs=2)
    assert np.abs(prepared.signal - whole.signal)[0, ~missing].max() < 0.2


def test_an_ecg_on_an_electrode_offset_is_recorded(toy_record):
    signal = np.round(toy_record.signal + 120.0, 2)  # 10 uV steps: in diastole many samples repeat the one before
    prepared = prepare(toy_record.with_(signal=signal))
    assert np.isfinite(prepared.signal).all()
    assert prepared.warnings == ()


def test_numbers_of_unknown_unit_are_not_off():
    prepared = prepare(Record(np.full((1, 5000), 80.0), 500.0, ("II",), gain_known=False))
    assert np.isfinite(prepared.signal).all()


def test_every_lead_off_is_refused():
    with pytest.raises(SignalError, match="leads off"):
        prepare(Record(np.full((2, 5000), -80.0), 500.0, ("I", "II")))
