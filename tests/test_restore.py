"""Restoring leads: algebra is exact, what is measured stays, what is generated is named and has a band."""

import numpy as np
import pytest

from anyecg.engine import load
from anyecg.errors import SignalError
from anyecg.leads import LIMB_LEADS, STANDARD_LEADS
from anyecg.record import Record
from anyecg.tasks.restore import by_algebra, restore, unusable_leads, with_leads, without


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return load(tiny_checkpoint, threads=1)


@pytest.fixture
def twelve():
    """Return 12 leads of 23 s at the model's rate that obey Einthoven and Goldberger."""
    rng = np.random.default_rng(0)
    one, two, *chest = np.cumsum(rng.normal(0, 0.02, (8, 6900)), axis=1)
    rows = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *chest]
    return Record(np.stack(rows), 300.0, STANDARD_LEADS, source_fs=500.0)


@pytest.mark.parametrize("present", [("I", "II"), ("aVR", "aVF"), ("III", "aVL"), ("II", "aVR", "V1")])
def test_two_limb_leads_give_the_other_four(twelve, present):
    partial = with_leads(twelve.pick(present), LIMB_LEADS)
    computed = by_algebra(partial, LIMB_LEADS)
    np.testing.assert_allclose(computed.pick(LIMB_LEADS).signal, twelve.pick(LIMB_LEADS).signal, atol=1e-4)
    assert computed.derived == frozenset(LIMB_LEADS) - frozenset(present)


def test_one_limb_lead_gives_none(twelve):
    partial = with_leads(twelve.pick(["I", "V1"]), LIMB_LEADS)
    assert np.isnan(by_algebra(partial, LIMB_LEADS).pick(["aVF"]).signal).all()


def test_absent_leads_are_generated_and_named(model, twelve):
    given = twelve.pick(["I", "II", "V2"])
    found = restore(given, model, STANDARD_LEADS, draws=5)
    record = found.record
    assert record.leads == STANDARD_LEADS
    assert np.isfinite(record.signal).all()
    assert record.restored == {"V1", "V3", "V4", "V5", "V6"}
    assert record.derived == {"III", "aVR", "aVL", "aVF"}
    np.testing.assert_array_equal(record.pick(given.leads).signal, given.signal)
    generated = [name in record.restored for name in record.leads]
    assert np.isfinite(found.low_mv[generated]).all()
    assert np.isnan(found.low_mv[~np.array(generated)]).all()
    assert (found.low_mv[generated] <= found.high_mv[generated]).all()


def test_a_gap_is_filled_and_nothing_else(model, twelve):
    signal = twelve.signal.copy()
    signal[7, 1000:2000] = np.nan  # V2
    found = restore(twelve.with_(signal=signal), model, ["V2"], draws=3)
    assert found.record.restored == {"V2"}
    kept = np.isfinite(signal)
    np.testing.assert_array_equal(found.record.signal[kept], signal[kept])
    assert np.isfinite(found.record.signal).all()
    assert np.isfinite(found.low_mv[7, 1000:2000]).all()
    assert np.isfinite(found.low_mv).sum() == 1000


def test_leads_that_were_not_asked_for_stay_missing(model, twelve):
    signal = twelve.signal.copy()
    signal[8] = np.nan
    found = restore(twelve.with_(signal=signal), model, ["V6"])
    assert np.isnan(found.record.signal[8]).all()
    assert not found.record.restored


def test_the_same_seed_draws_the_same(model, twelve):
    given = twelve.pick(["I", "II"])
    first, again, other = (restore(given, model, ["V4"], draws=2, seed=seed).record.signal for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_cannot_be_restored_is_said(model, twelve):
    with pytest.raises(ValueError, match="cannot restore ES; allowed are I, II"):
        restore(twelve, model, ["ES"])
    short = twelve.with_(signal=np.where(np.arange(6900) % 150 < 100, twelve.signal, np.nan))
    with pytest.raises(SignalError, match="no fragment is left"):
        restore(short, model, STANDARD_LEADS)


def test_unusable_leads_are_found_and_taken_out(twelve):
    source = twelve.signal.copy()
    source[9] = 0.0  # V4: flat
    record = twelve.with_(signal=source)
    assert "V4" in unusable_leads(record, record)
    left = without(record, ["V4"])
    assert np.isnan(left.pick(["V4"]).signal).all()
    kept = [name for name in STANDARD_LEADS if name != "V4"]
    np.testing.assert_array_equal(left.pick(kept).signal, record.pick(kept).signal)
