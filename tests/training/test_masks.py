"""Masks: every kind hides what it says and leaves something to see."""

import numpy as np
import pytest

from anyecg.training.masks import all_but_few, mixed_mask, spans, whole_leads
from anyecg.training.recipe import MaskSection


@pytest.mark.parametrize("kind", ["fragments", "spans", "leads", "all_but_few"])
@pytest.mark.parametrize("n_leads", [1, 2, 12])
def test_something_is_hidden_and_something_is_seen(kind, n_leads):
    valid = np.ones((50, n_leads, 20), dtype=bool)
    valid[:, :, 17:] = False
    weights = dict.fromkeys(("fragments", "spans", "leads", "all_but_few"), 0.0) | {kind: 1.0}
    mask = mixed_mask(valid, MaskSection(**weights), np.random.default_rng(0))
    assert not (mask & ~valid).any()
    assert mask.any(axis=(1, 2)).all()
    assert (valid & ~mask).any(axis=(1, 2)).all()


def test_spans_cover_all_leads_at_once():
    hidden = spans(np.ones((12, 20), dtype=bool), 0.4, np.random.default_rng(0))
    assert (hidden == hidden[:1]).all()
    assert 0.4 <= hidden.mean() < 0.8


def test_whole_leads_go_from_end_to_end():
    hidden = whole_leads(np.ones((12, 20), dtype=bool), 0.4, np.random.default_rng(0))
    assert (hidden == hidden[:, :1]).all()
    assert hidden[:, 0].sum() == 5


def test_all_but_few_keeps_one_to_three_leads():
    window = np.ones((12, 20), dtype=bool)
    kept = {int((~all_but_few(window, 0.4, np.random.default_rng(seed)))[:, 0].sum()) for seed in range(30)}
    assert kept == {1, 2, 3}


def test_the_scattered_share_is_the_ratio():
    valid = np.ones((200, 12, 20), dtype=bool)
    section = MaskSection(fragments=1, spans=0, leads=0, all_but_few=0, ratio=(0.4, 0.4))
    assert mixed_mask(valid, section, np.random.default_rng(0)).mean() == pytest.approx(0.4, abs=0.01)
