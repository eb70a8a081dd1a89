"""The anomaly score: normal records score like normal ones, odd ones higher, whichever leads are there."""

import numpy as np
import pytest

from anyecg.engine import Embedding
from anyecg.tasks.anomaly import NormalReference, context_of, find_anomaly, load_reference, save_references

LEADS = ("unknown", "I", "II", "V1")
WIDTH = 6


@pytest.fixture
def reference():
    rng = np.random.default_rng(0)
    means = rng.normal(size=(4, WIDTH))
    plain = NormalReference(LEADS, means, np.eye(WIDTH), np.zeros((0, 0)), 8.0)
    normal = means + rng.normal(size=(200, 4, WIDTH))
    distances = np.stack([plain.distance(one, LEADS) for one in normal])
    return NormalReference(LEADS, means, np.eye(WIDTH), distances, 8.0)


def embedding(reference, leads, shift, n_fragments=10):
    columns = reference.columns(leads)
    noise = np.random.default_rng(1).normal(size=(len(leads), 1, WIDTH))
    per_lead = reference.means[columns][:, None] + noise + shift
    per_fragment = np.repeat(per_lead, n_fragments, axis=1).astype(np.float32)
    return Embedding(per_fragment, per_fragment.mean(axis=(0, 1)), leads, 0.5)


@pytest.mark.parametrize("leads", [("I",), ("I", "V1"), ("ES",), ("I", "II", "V1", "ES")])
def test_odd_records_score_higher_through_any_leads(reference, leads):
    calm = np.full((len(leads), 10), 3.0)
    normal = find_anomaly(embedding(reference, leads, 0.0), calm, list(leads), reference)
    odd = find_anomaly(embedding(reference, leads, 5.0), calm, list(leads), reference)
    assert odd.score > normal.score
    assert odd.percentile == 100.0
    assert normal.percentile < 99.0


def test_leads_of_no_use_are_not_judged(reference):
    leads = ("I", "II")
    mixed = embedding(reference, leads, 0.0)
    mixed.per_fragment[1] += 100.0
    calm = np.full((2, 10), 3.0)
    alone = find_anomaly(mixed, calm, ["I"], reference)
    assert alone.score < find_anomaly(mixed, calm, ["I", "II"], reference).score
    assert find_anomaly(mixed, calm, [], reference) is None


def test_surprising_stretches_are_joined_and_ranked(reference):
    surprise = np.full((1, 10), 3.0)
    surprise[0, 2:4], surprise[0, 7], surprise[0, 9] = 9.0, 12.0, np.nan
    segments = find_anomaly(embedding(reference, ("I",), 0.0), surprise, ["I"], reference).segments
    assert [(a.start_s, a.end_s, a.score) for a in segments] == [(3.5, 4.0, 12.0), (1.0, 2.0, 9.0)]


def test_references_are_stored_and_read_back(reference, tmp_path):
    save_references(tmp_path, {"many": reference, "few": reference})
    again = load_reference(tmp_path, n_leads=12)
    assert again.leads == LEADS
    np.testing.assert_allclose(again.distances, reference.distances, rtol=1e-6)
    assert again.surprise_limit_bits == 8.0
    assert (context_of(2), context_of(3)) == ("few", "many")
