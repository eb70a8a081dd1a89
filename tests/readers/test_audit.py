"""What is said of every record: each fault is found where it was put, and good records are not complained about."""

import sys
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from anyecg.errors import ReadError
from anyecg.leads import LIMB_LEADS, STANDARD_LEADS
from anyecg.ranks import median, quantiles
from anyecg.readers import find_files, read
from anyecg.readers.audit import audit
from anyecg.readers.audits.electrodes import INTERCHANGES, features, median_beat
from anyecg.readers.audits.heartbeats import find_heartbeats
from anyecg.readers.audits.levels import levels_of
from anyecg.readers.audits.limbs import limb_contradictions
from anyecg.readers.audits.missing import without_marks
from anyecg.record import Record

FS = 500.0


def twelve_leads(duration_s: float = 10.0, fs: float = FS, bpm: float = 72.0, seed: int = 0) -> np.ndarray:
    """Return P, QRS and T of a normal axis in 12 leads that obey Einthoven, with noise, wander and a little mains; mV.

    Each wave has a size of its own in I, II and V1 ... V6, so that no lead is another one's multiple.
    """
    rng = np.random.default_rng(seed)
    t = np.arange(round(duration_s * fs)) / fs
    phase = (t + 0.3) % (60 / bpm)
    waves = {  # centre and width in s; height in I, II, V1 ... V6
        (0.22, 0.020): (0.08, 0.14, 0.05, 0.06, 0.06, 0.07, 0.07, 0.07),
        (0.366, 0.006): (-0.06, -0.08, 0.15, 0.20, 0.0, -0.05, -0.10, -0.10),
        (0.380, 0.009): (0.70, 1.10, 0.10, 0.40, 0.80, 1.40, 1.30, 0.95),
        (0.398, 0.007): (-0.10, -0.20, -0.90, -1.30, -0.8, -0.4, -0.15, -0.05),
        (0.63, 0.045): (0.20, 0.30, -0.05, 0.35, 0.40, 0.35, 0.30, 0.22),
    }
    eight = sum(
        np.outer(heights, np.exp(-0.5 * ((phase - centre) / width) ** 2)) for (centre, width), heights in waves.items()
    )
    eight = eight + 0.006 * rng.standard_normal(eight.shape) + 0.05 * np.sin(2 * np.pi * 0.2 * t)
    one, two = eight[:2]
    return np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *eight[2:]])


def hum(n_samples: int, fs: float, mains_hz: float, mv: float = 0.025) -> np.ndarray:
    """Return what mains add to 12 leads; the limb leads' share obeys Einthoven: electrodes pick it up."""
    one, two = 1.0, 0.6
    shares = np.array([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, 1, 1, 1, 1, 1, 1])
    return np.outer(mv * shares, np.sin(2 * np.pi * mains_hz * np.arange(n_samples) / fs))


def record(signal: np.ndarray, fs: float = FS, leads: tuple[str, ...] | None = None, step: float = 0.005) -> Record:
    """Return a record as a converter of a step in mV would give it."""
    return Record(np.round(signal / step) * step, fs, leads or STANDARD_LEADS[: len(signal)])


def said(signal: np.ndarray, fs: float = FS, **options: object) -> str:
    return "\n".join(audit("x", record(signal, fs, **options)).warnings)  # type: ignore[arg-type]


@pytest.mark.parametrize("fs", [100.0, 128.0, 250.0, 360.0, 500.0, 1000.0])
@pytest.mark.parametrize("bpm", [45.0, 72.0, 130.0])
def test_a_good_record_is_not_complained_about(fs: float, bpm: float) -> None:
    assert said(twelve_leads(10, fs, bpm), fs) == ""


# --- what was not recorded ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [-32768, 32767, 32768, -32767])
@pytest.mark.parametrize("n_marks", [1, 200])
def test_marks_of_missing_samples(count: int, n_marks: int) -> None:
    signal = np.round(twelve_leads() / 0.005)
    signal[1, 1000 : 1000 + n_marks] = count
    found, warnings = without_marks(Record(signal * 0.005, FS, STANDARD_LEADS))
    assert np.isnan(found.signal[1, 1000 : 1000 + n_marks]).all()
    assert np.isnan(found.signal).sum() == n_marks
    assert f"{n_marks} samples of {count * 0.005:.6g} mV" in warnings[0]
    assert warnings[0].endswith(f"II {n_marks}")


def test_marks_on_both_sides() -> None:
    signal = twelve_leads()
    signal[3, 50:60], signal[3, 90:99] = -163.84, 163.835
    found, _ = without_marks(Record(signal, FS, STANDARD_LEADS))
    assert np.flatnonzero(np.isnan(found.signal[3])).tolist() == [*range(50, 60), *range(90, 99)]


def test_a_plateau_at_the_rail_is_not_recorded_however_it_was_reached() -> None:
    signal = twelve_leads()
    signal[7, 2000:2050] = np.linspace(signal[7, 2000], 12.0, 50, endpoint=False)
    signal[7, 2050:3500] = 12.0
    found, warnings = without_marks(record(signal))
    assert np.isnan(found.signal[7, 2050:3500]).all()
    assert "V2 1450" in warnings[0]


@pytest.mark.parametrize("height", [3.0, 8.0])
def test_a_spike_is_no_mark(height: float) -> None:
    signal = twelve_leads()
    signal[1, 700:702] = height  # a pacing spike, not a multiple of the converter's step times 32768
    assert without_marks(record(signal))[1] == []


def test_the_source_is_not_changed() -> None:
    signal = twelve_leads().astype(np.float32)
    signal[0, :10] = -163.84
    before = signal.copy()
    without_marks(Record(signal, FS, STANDARD_LEADS))
    assert np.array_equal(signal, before)


def test_flat_leads_and_standstills() -> None:
    signal = twelve_leads()
    signal[8] = 0.0
    signal[9, 1000:2200] = 0.0
    text = said(signal)
    assert "flat: V3" in text
    assert "leads stand still: V4 2.4 s" in text
    assert "every lead is flat" in said(np.zeros((2, 5000)))


def test_padding_in_every_lead() -> None:
    signal = twelve_leads()
    signal[:, 3500:] = 0.0
    assert "every lead stands still for 3.0 s" in said(signal)


def test_gaps() -> None:
    signal = twelve_leads()
    signal[1, 1000:2000] = np.nan
    signal[1, 3000:3500] = np.nan
    signal[2] = np.nan
    text = said(signal)
    assert "nothing was recorded in III" in text
    assert "not recorded, of 10.0 s: II 3.0 s in 2 gaps" in text
    signal[:] = np.nan
    assert said(signal) == "nothing was recorded in any lead"
    whole = twelve_leads()
    whole[:, 500:1000] = np.nan
    assert said(whole) == "not recorded, of 10.0 s: 1.0 s of every lead"


@pytest.mark.parametrize("sign", [1, -1])
def test_clipped_peaks(sign: int) -> None:
    signal = sign * twelve_leads()
    signal[10] = np.clip(sign * signal[10], -9, 0.5) * sign
    assert "cut off at the converter's limit: V5" in said(signal, step=0.001)


def test_wander_into_the_rail() -> None:
    signal = twelve_leads()
    signal[6] = np.clip(signal[6] + 1.5 * np.sin(2 * np.pi * 0.4 * np.arange(5000) / FS), -0.9, 0.9)
    assert "cut off at the converter's limit: V1" in said(signal)


# --- units --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "meant"), [(1e3, "microvolts read as millivolts"), (1e6, "nanovolts"), (1e-3, "volts read as milli")]
)
def test_a_wrong_unit_is_said_and_corrected_if_asked_for(factor: float, meant: str) -> None:
    signal = twelve_leads()
    wrong = Record(signal * factor, FS, STANDARD_LEADS)
    warned = audit("x", wrong)
    assert meant in warned.warnings[0]
    assert "--fix-units" in warned.warnings[0]
    assert np.array_equal(warned.signal, wrong.signal)
    fixed = audit("x", wrong, fix_units=True)
    assert "as asked for" in fixed.warnings[0]
    np.testing.assert_allclose(fixed.signal, signal, rtol=1e-5)
    assert np.array_equal(audit("x", record(signal), fix_units=True).signal, record(signal).signal)


@pytest.mark.parametrize(("height_mv", "factor"), [(40.0, 1e-3), (0.004, 1e3)])
def test_forty_millivolts_and_four_microvolts(height_mv: float, factor: float) -> None:
    lead = twelve_leads()[1:2]
    wrong = Record(lead * height_mv / np.ptp(lead), FS, ("II",))
    fixed = audit("x", wrong, fix_units=True)
    assert fixed.signal == pytest.approx(wrong.signal * factor, rel=1e-5)


def test_noise_is_not_scaled_into_an_ecg() -> None:
    noise = Record(np.random.default_rng(0).normal(0, 0.0005, (2, 5000)), FS, ("I", "II"))
    found = audit("x", noise, fix_units=True)
    assert np.array_equal(found.signal, noise.signal)
    assert "nothing was connected" in found.warnings[0]


def test_an_unknown_gain_is_not_judged() -> None:
    assert audit("x", Record(twelve_leads() * 1000, FS, STANDARD_LEADS, gain_known=False)).warnings == ()


def test_through_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", (twelve_leads() * 1000).astype(np.float32))
    assert any("--fix-units" in line for line in read(tmp_path / "a.npy", fs=FS, unit="mV").warnings)
    fixed = read(tmp_path / "a.npy", fs=FS, unit="mV", fix_units=True)
    assert np.ptp(fixed.signal) < 5


# --- leads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), list(combinations(range(6), 2)))
def test_interchanged_limb_leads_are_named(first: int, second: int) -> None:
    signal = twelve_leads()
    signal[[first, second]] = signal[[second, first]]
    [warning] = limb_contradictions(record(signal))
    assert f"{LIMB_LEADS[first]} and {LIMB_LEADS[second]} are interchanged" in warning


@pytest.mark.parametrize("row", range(6))
def test_an_inverted_limb_lead_is_named(row: int) -> None:
    signal = twelve_leads()
    signal[row] *= -1
    [warning] = limb_contradictions(record(signal))
    assert warning.endswith(f"if {LIMB_LEADS[row]} is inverted")


def test_three_limb_leads_leave_a_choice() -> None:
    signal = twelve_leads()[:3]
    signal[2] *= -1
    [warning] = limb_contradictions(record(signal))
    assert "III is inverted" in warning
    assert " or " in warning


def test_leads_of_different_gains_contradict() -> None:
    signal = twelve_leads() / np.ptp(twelve_leads(), axis=1, keepdims=True)
    assert "contradict Einthoven's law" in "".join(limb_contradictions(record(signal, step=0.001)))


def test_offsets_and_wander_of_each_lead_contradict_nothing() -> None:
    wander = np.sin(2 * np.pi * np.arange(1, 13)[:, None] * 0.03 * np.arange(5000) / FS)
    assert limb_contradictions(record(twelve_leads() + wander + np.arange(12)[:, None])) == []


def test_derived_leads_prove_nothing() -> None:
    signal = twelve_leads()
    signal[2:6] *= 3
    derived = record(signal).with_(derived=frozenset(LIMB_LEADS[2:]))
    assert limb_contradictions(derived) == []


def with_limbs(one: np.ndarray, two: np.ndarray, chest: np.ndarray) -> np.ndarray:
    return np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *chest])


def test_electrodes_in_the_wrong_place_are_named() -> None:
    signal = twelve_leads()
    one, two, chest = signal[0], signal[1], signal[6:]
    assert said(signal) == ""
    assert said(-signal) == "every lead is possibly inverted"
    assert "lead I is possibly inverted" in said(with_limbs(-one, two - one, chest))
    assert "lead II is possibly inverted" in said(with_limbs(one - two, -two, chest))
    assert said(with_limbs(one - two, 0.02 * two, chest)).startswith("lead II is nearly flat: electrodes of right arm")
    assert said(with_limbs(two, 1.02 * two, chest)).startswith("lead III is nearly flat: electrodes of left arm")
    assert said(with_limbs(one, two, chest[::-1])) == "V1 to V6 are possibly in reverse order"


@pytest.mark.parametrize("row", [7, 8, 9, 10, 11])
def test_an_inverted_chest_lead_is_named(row: int) -> None:
    signal = twelve_leads()
    signal[row] *= -1
    assert said(signal) == f"V{row - 5} is possibly inverted"


def test_electrodes_are_not_asked_of_fewer_leads_nor_where_limb_leads_contradict() -> None:
    assert said(-twelve_leads()[:6]) == ""
    signal = -twelve_leads()
    signal[2] *= -1
    assert "possibly" not in said(signal)


def test_an_interchange_takes_itself_back() -> None:
    for matrix in INTERCHANGES.values():
        np.testing.assert_array_equal(matrix @ matrix, np.eye(8))


@pytest.mark.parametrize("fs", [100.0, 257.3, 1000.0])
def test_features_do_not_depend_on_rate_or_gain(fs: float) -> None:
    found = []
    for rate, gain in ((500.0, 1.0), (fs, 3.0)):
        one = record(gain * twelve_leads(fs=rate), rate)
        beats = find_heartbeats(one.signal[[1, 7, 10]], rate)
        assert beats is not None
        beat = median_beat(one, beats)
        assert beat is not None
        found.append(features(beat))
    np.testing.assert_allclose(found[1], found[0], atol=0.25)


def test_identical_leads() -> None:
    signal = twelve_leads()
    signal[8] = signal[7]
    assert said(signal) == "leads are identical: V3 = V2"


# --- rate ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mains_hz", [50.0, 60.0])
@pytest.mark.parametrize(("true_hz", "declared_hz"), [(1000.0, 500.0), (500.0, 250.0), (500.0, 1000.0), (500.0, 125.0)])
def test_a_wrong_rate_shows_in_a_displaced_mains_line(mains_hz: float, true_hz: float, declared_hz: float) -> None:
    signal = twelve_leads(60, true_hz, bpm=80)
    # Read too slowly, the line comes to lie nearer to the QRS complex's own frequencies and must be stronger to show.
    signal += hum(signal.shape[1], true_hz, mains_hz, 0.05 if declared_hz < true_hz else 0.025)
    assert said(signal, true_hz) == ""
    text = said(signal, declared_hz)
    assert f"the declared rate of {declared_hz:g} Hz is doubtful" in text
    # Four times too low, the line lies among the heart's own frequencies; the heart rate of 20 is enough.
    assert f"fit {true_hz:g} Hz and mains of {mains_hz:g} Hz" in text or declared_hz == 125


@pytest.mark.parametrize(("declared_hz", "which"), [(1800.0, "too high"), (100.0, "too low")])
def test_a_rate_that_is_far_off_shows_without_a_line(declared_hz: float, which: str) -> None:
    signal = twelve_leads(60, FS, bpm=80)
    assert f"probably {which}" in said(signal, declared_hz)


def test_a_line_alone_proves_nothing() -> None:
    signal = twelve_leads(20, bpm=80)
    signal += hum(signal.shape[1], FS, 25.0)
    assert said(signal) == ""


# --- bounds -------------------------------------------------------------------------------------------------------


def test_a_day_is_looked_at_in_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    from anyecg.readers.audits import heartbeats, pieces

    day = Record(np.tile(twelve_leads(60, 50.0)[:2], (1, 1440)), 50.0, ("I", "II"))
    assert len(pieces.pieces_of(day)) == pieces.MAX_PIECES
    assert sum(part.shape[1] for part in pieces.pieces_of(day)) == 4 * 1000
    seen: list[int] = []
    find = heartbeats.find_heartbeats
    module = sys.modules["anyecg.readers.audit"]  # the name in the package is the function
    monkeypatch.setattr(module, "find_heartbeats", lambda piece, fs: seen.append(piece.shape[1]) or find(piece, fs))
    audit("x", day)
    assert seen == [1000]


@pytest.mark.parametrize("n_samples", [1, 2, 3, 7, 60, 499])
@pytest.mark.parametrize("fs", [0.001, 1.0, 500.0, 1e9])
def test_short_records_and_odd_rates(n_samples: int, fs: float) -> None:
    rng = np.random.default_rng(n_samples)
    for signal in (
        rng.normal(size=(12, n_samples)),
        np.full((12, n_samples), np.nan),
        np.full((12, n_samples), 3e38),
        3e38 * np.sign(rng.normal(size=(12, n_samples))),
    ):
        assert audit("x", Record(signal, fs, STANDARD_LEADS)).n_samples == n_samples


# --- how often good recordings are complained about ---------------------------------------------------------------


TRULY_INTERCHANGED = {"1111985", "919337", "919340"}
"""Of CODE-15: P, QRS and T of lead I point down, its beat's correlation with V5's and V6's is below -0.75, and the
chest leads are usual. The warning is right."""


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "n_records"), [("ptb-xl", 150), ("cinc2017", 150), ("code-15", 100), ("cinc2021", 100)]
)
def test_false_alarms_on_real_records(name: str, n_records: int, database: Callable[[str], Path]) -> None:
    """At most one in a hundred of each alarm; what is truly wrong with these records (flat leads) is not counted."""
    headers = [path for path in find_files([database(name)]) if path.suffix == ".hea"]
    headers = headers[:: max(1, len(headers) // n_records)]
    alarms: Counter[str] = Counter()
    for path in headers:
        heart = ("declared rate", "implausible", "contradict", "possibly inverted", "cut off", "far from all others")
        if path.stem not in TRULY_INTERCHANGED:
            alarms.update(word for word in heart if any(word in warning for warning in read(path).warnings))
    assert len(headers) >= n_records
    # Of 100 records one or two may be hit by chance at a true rate of 1 %.
    assert all(n <= 2 for n in alarms.values()), alarms


def test_a_rate_that_no_ecg_has_is_refused():
    """The fuzzer's find: at 1e308 Hz, twenty seconds are more samples than there are numbers."""
    with pytest.raises(ReadError, match=r"a rate of 1e\+308 Hz, expected at most 1e\+12"):
        audit("file", Record(np.zeros((1, 100)), 1e308, ("I",)))


# --- the one pass over all samples --------------------------------------------------------------------------------


@pytest.mark.parametrize("n_samples", [1, 49, 50_001])
def test_levels_are_those_of_every_sample(n_samples: int) -> None:
    """Also where the pass goes in several stretches, and where samples are missing."""
    rng = np.random.default_rng(n_samples)
    signal = rng.normal(size=(12, n_samples)).astype(np.float32)
    signal[3, rng.integers(n_samples, size=n_samples // 3)] = np.nan
    signal[5] = np.nan
    levels = levels_of(Record(signal, FS, STANDARD_LEADS))
    assert np.array_equal(levels.low, np.fmin.reduce(signal, axis=1), equal_nan=True)
    assert np.array_equal(levels.high, np.fmax.reduce(signal, axis=1), equal_nan=True)
    assert np.array_equal(levels.whole, ~np.isnan(signal).any(axis=1))
    assert np.array_equal(levels.thin, signal[:, ::50], equal_nan=True)


def test_one_odd_sample_in_an_hour_is_found() -> None:
    """Decimated stretches decide most questions, but no mark and no infinity is missed between them."""
    signal = np.tile(twelve_leads(60), (1, 60)).astype(np.float32)
    signal[1, 777_777], signal[4, 1_234_567], signal[9, 55_555] = -163.84, np.inf, -np.inf
    found = audit("x", record(signal))
    assert np.argwhere(np.isnan(found.signal)).tolist() == [[1, 777_777], [4, 1_234_567], [9, 55_555]]
    assert any("2 infinite samples" in line for line in found.warnings)
    assert any("1 samples of -163.84 mV" in line for line in found.warnings)


def test_faults_late_in_a_long_record() -> None:
    signal = np.tile(twelve_leads(60), (1, 30)).astype(np.float32)
    signal[8] = signal[7]
    signal[2, 800_000:801_000] = 0.25
    text = said(signal)
    assert "leads stand still: III 2.0 s" in text
    assert "leads are identical: V3 = V2" in text


def test_spikes_of_no_width_are_no_heartbeats() -> None:
    signal = np.zeros((1, 2500), dtype=np.float32)
    signal[0, 100::200] = 1.0
    audit("spikes", Record(signal, 250.0, ("II",)))  # found by fuzzing: a width of zero has no logarithm


# --- the passes over all samples ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_samples", [1, 49, 50, 5000, 300_000])
@pytest.mark.parametrize("gap", [False, True])
def test_levels_are_those_of_all_samples(n_samples: int, gap: bool) -> None:
    """A long record is looked at block by block, a short one at once."""
    signal = np.random.default_rng(n_samples).normal(size=(3, n_samples)).astype(np.float32)
    signal[2] = np.nan
    if gap:
        signal[1, n_samples // 2 :] = np.nan
    found = levels_of(Record(signal, FS, ("I", "II", "III")))
    for row in (0, 1):
        known = signal[row][np.isfinite(signal[row])]
        if len(known):
            assert (found.low[row], found.high[row]) == (known.min(), known.max())
    assert np.isnan(found.low[2]) and np.isnan(found.high[2])
    assert found.whole.tolist() == [True, not gap, False]
    assert found.stride == 50
    np.testing.assert_array_equal(found.thin, signal[:, ::50])


@pytest.mark.parametrize("shape", [(1,), (2,), (7,), (3, 8), (4, 9), (5, 1), (2, 3, 6)])
def test_ranks_are_numpys(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)
    for axis in range(len(shape)):
        np.testing.assert_array_equal(median(values, axis), np.median(values, axis=axis))
    fractions = (0.0, 0.005, 0.25, 0.5, 0.995, 1.0)
    expected = np.moveaxis(np.quantile(values.astype(np.float64), fractions, axis=-1), 0, -1)
    np.testing.assert_allclose(quantiles(values, fractions), expected, rtol=1e-12, atol=1e-15)
    assert median(np.array([374, 375, 376, 378])) == 375.5
