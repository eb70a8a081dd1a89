"""Batches: reproducible, noise at the stated ratio, absent things not valid."""

import dataclasses

import numpy as np
import pytest

from anyecg.tokens import Grid
from anyecg.training.batches import Augmentation, BatchMaker, mixed_in, prefetched


def test_a_batch_is_a_function_of_seed_and_step(batches):
    for ours, again in zip(batches.parts(1, 7, 4, 4), batches.parts(1, 7, 4, 4), strict=True):
        for field in dataclasses.fields(ours):
            np.testing.assert_array_equal(getattr(ours, field.name), getattr(again, field.name))
    assert not np.array_equal(batches.parts(1, 8, 4, 4)[0].noisy, batches.parts(1, 7, 4, 4)[0].noisy)


def test_parts_have_many_and_few_leads_and_their_lengths(batches):
    many, few = batches.parts(0, 0, 3, 5, blocks_few=2)
    assert many.noisy.shape == (3, 12, 20, 150)
    assert few.noisy.shape == (5, 1, 40, 150)
    assert few.scale_mv.shape == (5, 2, 1)


def test_lead_counts_vary_within_a_batch(batches):
    present = batches.parts(0, 1, 40, 0)[0].valid.any(axis=2).sum(axis=1)
    assert present.min() < 6
    assert present.max() == 12


def test_the_noisy_signal_has_rms_one_and_the_clean_one_its_scale(corpus, noise):
    clean_only = BatchMaker(corpus, noise, Grid(), ("unknown",), Augmentation(noise_probability=0.0))
    part = clean_only.parts(0, 0, 4, 0)[0]
    np.testing.assert_array_equal(part.noisy, part.clean)
    rms = np.sqrt(np.square(part.noisy).sum(axis=(2, 3)) / np.maximum(part.recorded.sum(axis=(2, 3)), 1))
    np.testing.assert_allclose(rms[part.valid.any(axis=2)], 1.0, rtol=1e-4)
    noisy = BatchMaker(corpus, noise, Grid(), ("unknown",), Augmentation(noise_probability=1.0)).parts(0, 0, 4, 0)[0]
    assert (noisy.noisy != noisy.clean)[noisy.recorded].mean() > 0.9


@pytest.mark.parametrize("snr_db", [-6.0, 0.0, 12.0])
def test_noise_is_mixed_in_at_the_stated_ratio(snr_db):
    rng = np.random.default_rng(0)
    clean, noise = rng.normal(size=5000).astype(np.float32), 7 * rng.normal(size=5000).astype(np.float32)
    clean[:100] = np.nan
    added = mixed_in(clean, noise, snr_db)
    measured = 10 * np.log10(np.nanmean(clean**2) / np.mean(added**2))
    assert measured == pytest.approx(snr_db, abs=0.01)


def test_an_error_in_the_thread_reaches_the_caller():
    def make(step):
        if step == 2:
            raise RuntimeError("no such record")
        return []

    with pytest.raises(RuntimeError, match="no such record"):
        list(prefetched(make, 0, 5))


def test_prefetching_keeps_the_order():
    assert list(prefetched(lambda step: [step], 3, 9)) == [[3], [4], [5], [6], [7], [8]]
