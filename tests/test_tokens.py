"""The lead x time grid: cutting and joining are inverse, scale and validity are per block."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyecg.errors import SignalError
from anyecg.record import Record
from anyecg.tokens import Grid, Tokens, to_blocks, to_fragments, to_signal, to_timeline

GRID = Grid(fs_hz=300.0, fragment_samples=15, block_fragments=4)


def record(signal):
    return Record(signal, 300.0, tuple(f"L{i}" for i in range(len(signal))))


@settings(max_examples=30, deadline=None)
@given(n_leads=st.integers(1, 4), n_samples=st.integers(1, 200), seed=st.integers(0, 99))
def test_cut_and_join_give_the_signal_back(n_leads, n_samples, seed):
    signal = np.random.default_rng(seed).normal(size=(n_leads, n_samples)).astype(np.float32)
    fragments = to_fragments(record(signal), GRID)
    assert fragments.samples.shape[1:] == (n_leads, 4, 15)
    np.testing.assert_allclose(to_signal(fragments.samples, fragments.scale_mv, n_samples), signal, atol=1e-5)


def test_each_block_of_each_lead_has_its_own_scale():
    signal = np.ones((2, 120), dtype=np.float32)
    signal[1] *= 3
    signal[1, 60:] *= 2
    fragments = to_fragments(record(signal), GRID)
    np.testing.assert_allclose(fragments.scale_mv, [[1, 3], [1, 6]])
    np.testing.assert_allclose(np.abs(fragments.samples), 1)


def test_one_scale_for_all_leads_keeps_their_algebra():
    one, two = np.random.default_rng(0).normal(size=(2, 60)).astype(np.float32)
    grid = Grid(300.0, 15, 4, scale_per="record")
    fragments = to_fragments(record(np.stack([one, two, two - one])), grid)
    assert len(set(fragments.scale_mv[0].tolist())) == 1
    scaled = fragments.samples[0]
    np.testing.assert_allclose(scaled[2], scaled[1] - scaled[0], atol=1e-5)
    assert np.square(scaled).mean() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("scale_per", ["lead", "record"])
def test_the_codes_do_not_see_the_gain(scale_per):
    signal = np.random.default_rng(0).normal(size=(2, 130)).astype(np.float32)
    grid = Grid(300.0, 15, 4, scale_per)
    plain, louder = to_fragments(record(signal), grid), to_fragments(record(1000 * signal), grid)
    np.testing.assert_allclose(plain.samples, louder.samples, atol=1e-5)


def test_a_fragment_is_valid_if_half_of_it_is_recorded():
    signal = np.ones((1, 60), dtype=np.float32)
    signal[0, 15:22] = np.nan  # 8 of 15 left
    signal[0, 30:38] = np.nan  # 7 of 15 left
    fragments = to_fragments(record(signal), GRID)
    assert fragments.valid[0, 0].tolist() == [True, True, False, True]
    assert np.isfinite(fragments.samples).all()
    assert fragments.scale_mv[0, 0] == 1.0  # what was not recorded does not lower the RMS


def test_a_flat_lead_is_not_amplified():
    assert to_fragments(record(np.zeros((1, 60), dtype=np.float32)), GRID).scale_mv[0, 0] == np.float32(1e-3)


def test_another_rate_is_refused():
    with pytest.raises(SignalError, match=r"500 Hz, expected 300 Hz"):
        to_fragments(Record(np.zeros((1, 500)), 500.0, ("I",)), GRID)


@given(n_fragments=st.integers(1, 13))
def test_blocks_and_timeline_are_inverse(n_fragments):
    values = np.arange(2 * n_fragments * 3).reshape(2, n_fragments, 3)
    blocks = to_blocks(values, 4, fill=-1)
    assert blocks.shape[1:] == (2, 4, 3)
    np.testing.assert_array_equal(to_timeline(blocks, n_fragments), values)


def test_bits_per_second_count_codes_and_scales():
    shape = (1, 20, 4)
    tokens = Tokens(np.zeros(shape), np.ones(shape[:2], bool), np.ones((1, 1)), Grid(), 1024, ("I",), 3000)
    assert tokens.bits_per_second == pytest.approx(4 * 10 / 0.5 + 16 / 10)
