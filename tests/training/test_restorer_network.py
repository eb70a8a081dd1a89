"""Training of the network that corrects regressed leads: what it starts as, what it learns, what is written."""

from itertools import cycle

import numpy as np
import onnxruntime
import pytest
import torch

from anyecg.leads import LIMB_LEADS, STANDARD_LEADS
from anyecg.models.unet import LOG_SPREAD, Corrector, UNet
from anyecg.record import Record
from anyecg.tasks.lead_correction import WINDOW_SAMPLES
from anyecg.tasks.lead_regression import Mixture, weights_of
from anyecg.training.recipe import StageSection
from anyecg.training.restorer import calibrate, fit_mixture, graph_of, lagged_of
from anyecg.training.restoring import (
    Blocks,
    draw_missing,
    example,
    fit_alone,
    fit_corrector,
    restoring_loss,
    spread_loss,
)

N_SAMPLES = 480


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small lose time on two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def blocks():
    """Return blocks whose chest leads are the squares of limb leads: what no regression finds."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(12):
        two = np.stack([np.convolve(rng.normal(size=N_SAMPLES), np.ones(9) / 3, mode="same") for _ in range(2)])
        limb = weights_of(LIMB_LEADS)[:, :2] @ two
        made.append(np.concatenate([limb, np.square(limb) - np.square(limb).mean(axis=1, keepdims=True)]))
    return np.stack(made).astype(np.float16)


@pytest.fixture(scope="module")
def mixture(blocks):
    records = (Record(x.astype(np.float32), 300.0, STANDARD_LEADS, source_fs=300.0) for x in blocks)
    return fit_mixture(lagged_of(records), 2)


def test_at_first_it_is_half_the_plain_network_and_half_the_guess():
    torch.manual_seed(0)
    plain = UNet().eval()
    corrector = Corrector().begin_from(plain).eval()
    leads, guess = torch.randn(2, 24, 160), torch.randn(2, 12, 160)
    with torch.no_grad():
        mean, log_spread = corrector(torch.cat([leads, guess], dim=1)).chunk(2, dim=1)
        torch.testing.assert_close(mean, (plain(leads) + guess) / 2)
    assert (log_spread == -2).all()


def test_the_expected_error_is_bounded():
    corrector = Corrector()
    torch.nn.init.constant_(corrector.unet.out.bias, 100.0)
    assert corrector(torch.zeros(1, 36, 16))[:, 12:].max() == LOG_SPREAD[1]


def test_every_kind_of_absence_is_drawn():
    rng = np.random.default_rng(0)
    drawn = [draw_missing(rng, 3000) for _ in range(400)]
    assert all(one.any() for one in drawn)
    assert not any(one.all(axis=0).all() for one in drawn), "something is always there"
    whole = [one for one in drawn if (one.all(axis=1) | ~one.any(axis=1)).all()]
    assert 0.05 < 1 - len(whole) / len(drawn) < 0.25, "some are missing for a while only"
    n_given = {int((~one[:, 0]).sum()) for one in whole}
    assert {1, 2, 6, 7, 8, 9, 11} <= n_given


def test_an_example_hides_what_it_asks_for(blocks, mixture):
    rng = np.random.default_rng(1)
    truth = blocks[0].astype(np.float32)
    truth[:, 400:] = np.nan  # the record ends
    for _ in range(20):
        x, wanted = example(rng, truth, mixture)
        assert x.shape == (36, 480) and wanted.shape == truth.shape
        asked = np.isfinite(wanted)
        assert asked.any() and not asked[:, 400:].any()
        there = x[12:24] == 1
        assert not (asked & there).any() and not there[:, 400:].any()
        assert (x[:12][~there] == 0).all() and (x[24:][there] == 0).all()
        assert (asked | there)[:, :400].all()
        scale = (truth[asked] / wanted[asked]).mean()
        np.testing.assert_allclose(x[:12][there] * scale, truth[there], rtol=1e-4)


def test_losses_count_only_what_is_asked():
    torch.manual_seed(0)
    truth, guess = torch.randn(1, 12, 300), torch.randn(1, 12, 300)
    truth[:, 3:] = torch.nan
    loss, r = restoring_loss(guess, truth)
    other = guess.clone()
    other[:, 3:] = 100.0
    assert restoring_loss(other, truth)[0] == loss
    assert r == pytest.approx(np.mean([np.corrcoef(truth[0, i], guess[0, i])[0, 1] for i in range(3)]), abs=1e-3)
    assert restoring_loss(torch.nan_to_num(truth), truth)[0] < 0.01
    errors = (guess - truth).abs()[:, :3]
    best = errors.mean().log()
    at = [spread_loss(torch.full_like(guess, float(best) + d), guess, truth) for d in (-0.2, 0.0, 0.2)]
    assert at[1] < at[0] and at[1] < at[2]


def test_it_learns_what_regression_cannot_and_goes_on_where_it_stopped(blocks, mixture, tmp_path):
    short = StageSection(steps=30, n_many=4, n_few=0, learning_rate=3e-3, warmup_steps=5, checkpoint_every_s=1e9)
    made = Blocks(blocks, np.zeros(len(blocks), dtype=int), [mixture])

    def fitted(folder):
        torch.manual_seed(0)
        plain = fit_alone(UNet(), blocks, folder / "alone", short.model_copy(update={"steps": 2}))
        return fit_corrector(Corrector().begin_from(plain), made, folder / "with_guess", short)

    network = fitted(tmp_path)
    truth = blocks[0].astype(np.float32)
    rng = np.random.default_rng(4)
    losses = []
    for _ in range(8):
        x, wanted = (torch.from_numpy(one[None]) for one in example(rng, truth, mixture))
        with torch.no_grad():
            guess = network(x)[:, :12]
        losses.append([restoring_loss(g, wanted)[0].item() for g in (guess, x[:, 24:])])
    corrected, regressed = np.mean(losses, axis=0)
    assert corrected < 0.8 * regressed
    again = fitted(tmp_path)  # nothing is left to do
    for one, other in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_calibration_takes_the_network_where_it_is_better(blocks, mixture):
    records = [Record(x.astype(np.float32), 300.0, STANDARD_LEADS, source_fs=300.0) for x in blocks[:4]]
    turn = cycle(records)  # the network is asked once for each, set of given leads after set

    def knowing(x):
        truth = next(turn).signal
        scale = np.sqrt(np.square(truth[x[0, 12:24, :N_SAMPLES] == 1]).mean())
        said = np.concatenate([truth / scale, np.full(truth.shape, -1.0)])
        return np.pad(said, ((0, 0), (0, x.shape[2] - N_SAMPLES)))[None]

    good = calibrate(mixture, knowing, records)
    assert good["network_shares"] == [1.0] * 8
    rng = np.random.default_rng(0)
    bad = calibrate(mixture, lambda x: rng.normal(0, 50, (1, 24, x.shape[2])).clip(-6, 2), records)
    assert max(bad["network_shares"]) < 1
    assert len(bad["band_factors"]) == 8 and min(bad["band_factors"]) > 0


def test_the_graph_holds_the_network_beside_the_components(mixture):
    torch.manual_seed(0)
    network = Corrector().begin_from(UNet()).eval()
    for weights in network.parameters():
        weights.data = weights.data.half().float()
    kept = Mixture(mixture.share, mixture.lagged.astype(np.float16).astype(np.float32))
    graph = graph_of(kept, network)
    assert len(graph) < 3.7e6
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    leads = np.random.default_rng(0).normal(size=(1, 36, WINDOW_SAMPLES)).astype(np.float32)
    covariance, restored = session.run(None, {"shares": np.eye(2, dtype=np.float32), "leads": leads})
    np.testing.assert_array_equal(covariance, kept.lagged)
    with torch.no_grad():
        np.testing.assert_allclose(restored, network(torch.from_numpy(leads)).numpy(), atol=1e-3)
