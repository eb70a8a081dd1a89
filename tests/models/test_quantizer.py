"""The residual cosine quantizer: choice, learning, revival, straight-through gradient."""

import pytest
import torch
from torch.nn import functional as F

from anyecg.models.quantizer import ResidualCosineQuantizer


def directions(n, dims, seed=0):
    return F.normalize(torch.randn(n, dims, generator=torch.Generator().manual_seed(seed)), dim=-1)


def trained(n_levels=3, codebook_size=16, dims=6, steps=60, **options):
    torch.manual_seed(0)
    quantizer = ResidualCosineQuantizer(n_levels, codebook_size, dims, **options).train()
    for step in range(steps):
        quantizer(directions(512, dims, seed=step))
    return quantizer.eval()


def test_codes_are_the_most_similar_directions():
    quantizer = trained(n_levels=1)
    z = directions(50, 6, seed=99)
    cosine = F.cosine_similarity(z[:, None], quantizer.codebooks[0][None], dim=-1)
    assert torch.equal(quantizer.encode(z)[:, 0], cosine.argmax(dim=-1))


def test_choice_agrees_with_vector_quantize_pytorch():
    library = pytest.importorskip("vector_quantize_pytorch")
    quantizer = trained(n_levels=1)
    other = library.VectorQuantize(dim=6, codebook_size=16, use_cosine_sim=True).eval()
    other.codebook = F.normalize(quantizer.codebooks[0], dim=-1)
    z = directions(200, 6, seed=7)
    _, codes, _ = other(z[None])
    assert torch.equal(quantizer.encode(z)[:, 0], codes[0])


def test_every_level_brings_the_sum_nearer():
    quantizer = trained(n_levels=4)
    z = directions(1000, 6, seed=99)
    codes = quantizer.encode(z)
    errors = []
    for level in range(1, 5):
        kept = torch.stack([quantizer.codebooks[k][codes[:, k]] for k in range(level)]).sum(dim=0)
        errors.append(float((z - kept).square().sum(dim=-1).mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.25 * errors[0]


def test_training_and_encoding_give_the_same_codes_and_vectors():
    quantizer = trained()
    z = directions(100, 6, seed=5)
    quantized = quantizer(z)
    assert torch.equal(quantized.codes, quantizer.encode(z))
    torch.testing.assert_close(quantized.vectors, quantizer.lookup(quantized.codes))


def test_dead_codes_are_revived():
    quantizer = trained(n_levels=1, codebook_size=64, decay=0.9)
    quantizer.codebooks[0, :60] = torch.tensor([-1.0, 0, 0, 0, 0, 0])  # all alike: 59 of them can never be chosen
    quantizer.train()
    for step in range(100):
        quantizer(directions(512, 6, seed=1000 + step))
    assert len(quantizer.eval().encode(directions(4000, 6, seed=3)).unique()) >= 60


def test_the_first_batch_places_the_codes():
    quantizer = ResidualCosineQuantizer(2, 8, 6)
    before = quantizer.codebooks.clone()
    quantizer.eval()(directions(100, 6))
    assert torch.equal(quantizer.codebooks, before)
    quantizer.train()(directions(100, 6))
    assert bool(quantizer.started)
    assert not torch.equal(quantizer.codebooks, before)


def test_the_gradient_passes_straight_through():
    quantizer = trained()
    z = directions(10, 6).requires_grad_()
    quantizer(z).vectors.sum().backward()
    torch.testing.assert_close(z.grad, torch.ones_like(z))


def test_the_papers_form_trains_the_codebook_by_gradient():
    quantizer = ResidualCosineQuantizer(1, 16, 6, codebook_gradient=True, dead_below=0.0).train()
    quantizer.started.fill_(True)  # from random codes: k-means would leave nothing to learn
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=5.0)
    z = directions(256, 6)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = quantizer(z).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[1]
