"""The anomaly score: normal records score like normal ones, odd ones higher, whichever leads are there."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import anyecg
from anyecg.beats import find_beats
from anyecg.engine import Embedding
from anyecg.errors import CheckpointError
from anyecg.record import Record
from anyecg.result import Rhythm
from anyecg.tasks.anomaly import (
    ALL_MEASURES,
    CONTEXTS,
    FILE,
    UNKNOWN,
    NormalReference,
    References,
    anomaly_map,
    context_of,
    find_anomaly,
    fragment_log_distances,
    load_reference,
    measure_all,
    save_references,
)
from anyecg.tasks.measures import MEASURES, NORMAL_SCORES, log_size
from anyecg.tasks.window_measures import Measured

LEADS = ("I", "II", "V1")
WIDTH, FACTORS, N_NORMAL = 6, 2, 300
NAMES = ("rate_bpm", "rr_cv", "best_r")
MEANS, SPREADS = np.array([70.0, 0.04, 1.0]), np.array([10.0, 0.02, 0.5])


def normal_reference(leads):
    """Made of a known Gaussian: factors shared by all leads, noise 0.25."""
    rng = np.random.default_rng(0)
    n_columns = len(leads)
    loadings = rng.normal(size=(n_columns, WIDTH, FACTORS))
    empty = NormalReference(
        leads=leads,
        window_fragments=10,
        means=rng.normal(size=(n_columns, WIDTH)),
        spreads=np.ones((n_columns, WIDTH)),
        loadings=loadings,
        noise=0.25,
        power=np.zeros(0),
        factors=np.zeros(0),
        measure_names=NAMES,
        measure_quantiles=(MEANS + SPREADS * NORMAL_SCORES[:, None])[None].astype(np.float32),
        measures=rng.normal(size=(N_NORMAL, 1, 3)),
        measure_covariances=np.zeros((0, 3, 3)),
        embedding_share=0.5,
        fragment_means=rng.normal(size=(n_columns, WIDTH)),
        fragment_whitening=np.eye(WIDTH),
        fragment_levels=np.array([[3.0, 1.0], [0.8, 0.4]]),
        map_limit=3.0,
    )
    power, factors = empty.standardised(normal_embeddings(empty, N_NORMAL, 1), list(range(n_columns)))
    return replace(empty, power=power, factors=factors)


def normal_embeddings(reference, n, seed):
    """Draw mean embeddings of normal records, (n, C, D)."""
    rng = np.random.default_rng(seed)
    shared = np.einsum("ldf,nf->nld", reference.loadings, rng.normal(size=(n, FACTORS)))
    return reference.means + shared + 0.5 * rng.normal(size=shared.shape)


@pytest.fixture(scope="module")
def references():
    return References(normal_reference(LEADS), normal_reference((UNKNOWN,)))


def embedding(references, leads, shift=0.0, n_fragments=10, seed=1):
    rows = []
    for lead in leads:
        reference, column = references.of(lead)
        rows.append(normal_embeddings(reference, 1, seed)[0, column] + shift)
    per_fragment = np.repeat(np.array(rows)[:, None], n_fragments, axis=1).astype(np.float32)
    return Embedding(per_fragment, per_fragment.mean(axis=(0, 1)), leads, 0.5)


def calm(leads, n_fragments=10):
    return np.full((len(leads), n_fragments), 3.0, dtype=np.float32)


@pytest.mark.parametrize("leads", [("I",), ("I", "V1"), ("ES",), ("ES", "AI"), ("I", "II", "V1", "ES")])
def test_odd_records_score_higher_through_any_leads(references, leads):
    normal = find_anomaly(embedding(references, leads), calm(leads), list(leads), references)
    odd = find_anomaly(embedding(references, leads, 5.0), calm(leads), list(leads), references)
    assert odd.score > normal.score + 2
    assert odd.percentile == 100.0
    assert normal.percentile < 99.0


def test_a_distance_is_that_of_the_whole_covariance(references):
    reference = references.known
    x = normal_embeddings(reference, 1, 3)[0]
    w = reference.loadings[[0, 2]].reshape(-1, FACTORS)
    power, factors = reference.standardised(x[[0, 2]], [0, 2])
    z = (x[[0, 2]] - reference.means[[0, 2]]).ravel()
    expected = z @ np.linalg.inv(w @ w.T + 0.25 * np.eye(len(w))) @ z
    assert np.exp(2 * reference.log_distance(power, factors, [0, 2])) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("leads", [("II",), ("I", "II", "V1"), ("ES",)])
def test_percentiles_of_normal_records_are_even_and_scores_centred(references, leads):
    found = [
        find_anomaly(embedding(references, leads, seed=s), calm(leads), list(leads), references) for s in range(200)
    ]
    percentiles = np.array([a.percentile for a in found])
    assert np.quantile(percentiles, [0.25, 0.5, 0.75]) == pytest.approx([25, 50, 75], abs=12)
    assert np.median([a.score for a in found]) == pytest.approx(0, abs=0.3)


def test_an_odd_part_of_a_long_record_counts_and_one_window_does_not(references):
    leads = ("I",)
    long = embedding(references, leads, n_fragments=400)  # 40 windows
    part, moment = (Embedding(long.per_fragment.copy(), long.pooled, leads, 0.5) for _ in range(2))
    part.per_fragment[:, :100] += 5.0
    moment.per_fragment[:, :10] += 5.0
    still = calm(leads, 400)
    whole = find_anomaly(long, still, ["I"], references)
    assert find_anomaly(part, still, ["I"], references).percentile == 100.0
    assert find_anomaly(moment, still, ["I"], references).score == pytest.approx(whole.score)


def test_a_long_record_scores_like_a_short_one(references):
    short = find_anomaly(embedding(references, ("I",)), calm(("I",)), ["I"], references)
    n = 10 * 300
    long = find_anomaly(embedding(references, ("I",), n_fragments=n), calm(("I",), n), ["I"], references)
    assert long.score == pytest.approx(short.score)
    assert long.percentile == pytest.approx(short.percentile)


def test_irregular_beats_raise_the_score(references):
    leads = ("ES",)
    rng = np.random.default_rng(0)
    record = Record(rng.normal(0, 0.01, (1, 1500)), 300.0, leads, source_fs=500.0)
    steady = Rhythm(np.arange(0.2, 5, 0.85) + rng.normal(0, 0.02, 6), lead="ES")
    wild = Rhythm(np.array([0.2, 0.9, 1.3, 2.6, 2.95, 4.4]), lead="ES")
    scores = [
        find_anomaly(embedding(references, leads), calm(leads), ["ES"], references, record, rhythm).score
        for rhythm in (steady, wild)
    ]
    assert scores[1] > scores[0] + 0.5


def test_voltages_of_an_unknown_gain_do_not_count(references):
    leads = ("ES",)
    signal = np.random.default_rng(0).normal(0, 0.2, (1, 1500))
    rhythm = Rhythm(np.arange(0.5, 5, 0.85), lead="ES")
    scores = []
    for gain in (1.0, 100.0):
        record = Record(signal * gain, 300.0, leads, source_fs=500.0, gain_known=False)
        scores.append(find_anomaly(embedding(references, leads), calm(leads), ["ES"], references, record, rhythm).score)
    assert scores[0] == pytest.approx(scores[1])


def test_a_few_odd_measures_among_many_count_and_the_calm_majority_does_not():
    calm = np.random.default_rng(0).normal(size=(500, 300))
    odd = calm[:1].copy()
    odd[0, 100:120] = 3.0
    levels = log_size(calm)
    assert log_size(odd)[0] > levels.max()
    assert log_size(-odd)[0] == pytest.approx(log_size(odd)[0])
    shrunk = odd.copy()
    shrunk[0, 120:] *= 0.5  # what is more than normal makes nothing less odd
    assert log_size(shrunk)[0] > levels.max()


def test_without_a_name_it_counts_what_goes_with_what(references):
    together = np.array([[1, 0.95, 0], [0.95, 1, 0], [0, 0, 1.0]])
    measures = np.random.default_rng(0).multivariate_normal(np.zeros(3), together, (N_NORMAL, 1))
    plain = replace(references.unknown, measures=measures)
    joint = replace(plain, measure_covariances=together[None])
    usual, odd = ((MEANS + SPREADS * np.array([1.2, sign * 1.2, 0])).astype(np.float32) for sign in (1, -1))
    assert plain.measure_levels(usual, 0)[0] == pytest.approx(plain.measure_levels(odd, 0)[0], abs=0.01)
    assert joint.measure_levels(odd, 0)[0] > joint.measure_levels(usual, 0)[0] + 0.5
    assert len(joint.measure_levels(odd, 0)[1]) == N_NORMAL
    z = np.array([[1.2, -1.2, 0.3]])
    assert np.exp(2 * log_size(z, np.linalg.inv(together)))[0] == pytest.approx(
        z[0] @ np.linalg.solve(together, z[0]), rel=1e-4
    )


def test_a_measure_that_normal_records_lack_is_left_out(references):
    known = references.known
    quantiles = known.measure_quantiles.copy()
    quantiles[..., 2] = np.nan
    lacking = replace(known, measure_quantiles=quantiles)
    wild = np.array([70.0, 0.04, 50.0], dtype=np.float32)
    assert lacking.measure_levels(wild, 0)[0] < 0.5 < 2 < known.measure_levels(wild, 0)[0]
    assert lacking.measure_levels(np.full(3, np.nan, dtype=np.float32), 0) is None


def test_what_is_measured_is_named_and_shapes_need_no_gain():
    rng = np.random.default_rng(0)
    t = np.arange(3000) / 300
    lead = np.exp(-0.5 * ((t % 0.8 - 0.4) / 0.012) ** 2) + 0.2 * np.exp(-0.5 * ((t % 0.8 - 0.65) / 0.04) ** 2)
    rhythm = Rhythm(np.arange(0.4, 10, 0.8), lead="V5")
    found = {}
    for gain, known in ((1.0, True), (7.0, False)):
        signal = gain * (lead + 0.002 * rng.normal(size=3000))[None]
        record = Record(signal, 300.0, ("V5",), source_fs=500.0, gain_known=known)
        found[known] = dict(zip(ALL_MEASURES, measure_all(Measured(record, rhythm), 0.0, 10.0), strict=True))
    assert np.isfinite(found[True]["V5_t"]) and np.isnan(found[False]["V5_t"])
    assert found[True]["V5_t_over_rms"] == pytest.approx(found[True]["V5_t"] / (found[True]["V5_rms"] + 0.005))
    assert found[False]["V5_t_over_rms"] == pytest.approx(found[True]["V5_t_over_rms"], rel=0.1)
    assert found[True]["rr: shortest, s"] == pytest.approx(0.8, abs=0.01)
    assert ALL_MEASURES[: len(MEASURES)] == MEASURES
    some = measure_all(Measured(record, rhythm), 0.0, 10.0, wanted=("best_t_over_rms",))
    few = dict(zip(ALL_MEASURES, some, strict=True))
    assert few["best_t_over_rms"] == found[False]["best_t_over_rms"] and np.isnan(few["rr: shortest, s"])


def test_leads_of_no_use_are_not_judged(references):
    leads = ("I", "II")
    mixed = embedding(references, leads)
    mixed.per_fragment[1] += 100.0
    alone = find_anomaly(mixed, calm(leads), ["I"], references)
    assert alone.score < find_anomaly(mixed, calm(leads), ["I", "II"], references).score
    assert find_anomaly(mixed, calm(leads), [], references) is None


def test_the_map_grows_with_surprise_and_with_distance(references):
    leads = ("I", "ES")
    plain = embedding(references, leads)
    surprise = calm(leads)
    surprise[0, 4], surprise[1, 9] = 8.0, np.nan
    plain.per_fragment[1, 2] += 10.0
    levels = anomaly_map(plain, surprise, references)
    assert levels.shape == (2, 10)
    assert np.isnan(levels[1, 9])
    assert np.unravel_index(np.nanargmax(levels[0]), levels[0].shape) == (4,)
    assert levels[0, 4] - levels[0, 5] == pytest.approx(2.5)  # half of five bits, a bit a spread
    assert np.nanargmax(levels[1]) == 2


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5)])
def test_the_distance_of_any_number_of_fragments_is_mahalanobis(shape):
    rng = np.random.default_rng(0)
    fragments, mean, whitening = rng.normal(size=(*shape, WIDTH)), rng.normal(size=WIDTH), rng.normal(size=(WIDTH,) * 2)
    if shape:
        fragments[..., -1, :] = np.nan  # not recorded: its neighbours do not notice
    found = fragment_log_distances(fragments, mean, whitening)
    apart = fragments - mean
    squared = np.einsum("...i,ij,...j->...", apart, whitening @ whitening.T, apart)
    np.testing.assert_allclose(found, 0.5 * np.log(squared), atol=1e-5)


def test_no_other_core_is_kept_busy_by_distances():
    code = """
import os, time
os.environ["OPENBLAS_NUM_THREADS"] = "2"
import numpy as np
from anyecg.tasks.anomaly import fragment_log_distances
fragments, mean, whitening = np.ones((120, 192), "f4"), np.zeros(192, "f4"), np.eye(192, dtype="f4")
time.sleep(0.5)  # helpers wait with eyes open at the start, too
before = time.process_time() - time.thread_time()
for _ in range(10):
    fragment_log_distances(fragments, mean, whitening)
    time.sleep(0.02)
print(time.process_time() - time.thread_time() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.02


def test_unusual_stretches_are_joined_and_ranked(references):
    surprise = calm(("I",))
    surprise[0, 2:4], surprise[0, 7], surprise[0, 9] = 15.0, 22.0, np.nan
    segments = find_anomaly(embedding(references, ("I",)), surprise, ["I"], references).segments
    assert [(a.start_s, a.end_s) for a in segments] == [(3.5, 4.0), (1.0, 2.0)]
    assert segments[0].score > segments[1].score > references.known.map_limit


def test_references_are_stored_and_read_back(references, tmp_path):
    save_references(tmp_path, dict.fromkeys(CONTEXTS, references))
    again = load_reference(tmp_path, n_leads=12)
    assert again.known.leads == LEADS
    assert again.unknown.leads == (UNKNOWN,)
    assert again.known.measure_names == NAMES
    assert again.known.window_fragments == 10
    assert again.known.measure_quantiles.tobytes() == references.known.measure_quantiles.tobytes()
    np.testing.assert_allclose(again.known.factors, references.known.factors, rtol=2e-3, atol=1e-3)
    assert [context_of(n) for n in (2, 3, 8, 12)] == ["few", "some", "some", "many"]
    assert load_reference(tmp_path, n_leads=3).unknown.leads == (UNKNOWN,)


def test_a_reference_of_another_version_is_refused(tmp_path):
    np.savez(tmp_path / FILE, leads=np.array(["I"]))
    with pytest.raises(CheckpointError, match="version 1, expected 3"):
        load_reference(tmp_path, 1)


def test_a_holter_strip_full_of_ectopic_beats_stands_out_under_any_name(toy_record):
    model = anyecg.load("nano")
    for name in ("MLII", "lead"):
        record = model.prepare(toy_record.with_(leads=(name,)))
        shown = model.embed(record)
        unexpected = np.full(shown.per_fragment.shape[:2], np.nan, dtype=np.float32)
        reference = load_reference(model.checkpoint.folder, 1)
        found = find_anomaly(shown, unexpected, [name], reference, record, find_beats(record))
        assert 85 < found.percentile <= 100
