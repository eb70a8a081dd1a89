"""Finite scalar quantization: agreement with a library, every code can be reached, straight-through gradient."""

import pytest
import torch
from pydantic import ValidationError

from anyecg.models.fsq import FiniteScalarQuantizer
from anyecg.models.sizes import TokenizerConfig
from anyecg.models.tokenizer import Tokenizer


def some(n, dims, spread=2.0, seed=0):
    return spread * torch.randn(n, dims, generator=torch.Generator().manual_seed(seed))


def test_values_and_codes_agree_with_vector_quantize_pytorch():
    library = pytest.importorskip("vector_quantize_pytorch")
    values = (8, 5, 4)
    z = some(500, 6)
    ours = FiniteScalarQuantizer(2, values)
    vectors, codes = library.FSQ(levels=list(values), num_codebooks=2)(z[None])
    quantized = ours(z)
    torch.testing.assert_close(quantized.vectors, vectors[0])
    assert torch.equal(quantized.codes, codes[0].long())


def test_each_dimension_takes_exactly_its_values():
    quantizer = FiniteScalarQuantizer(1, (8, 3))
    vectors = quantizer.lookup(quantizer.encode(some(5000, 2)))
    # Equation 1 for an odd number: -1, 0, 1; for eight: whole numbers -4 to 3, over 4.
    assert vectors[:, 1].unique().tolist() == [-1.0, 0.0, 1.0]
    assert vectors[:, 0].unique().tolist() == [k / 4 for k in range(-4, 4)]


def test_every_code_is_reached_and_stands_for_itself():
    quantizer = FiniteScalarQuantizer(2, (4, 4, 3))
    codes = quantizer.encode(some(20_000, 6))
    assert len(codes[:, 0].unique()) == len(codes[:, 1].unique()) == quantizer.codebook_size == 48
    every = torch.arange(48)[:, None].expand(-1, 2)
    # The bound is undone by atanh, so each code's own vector must come back as that code.
    half = (quantizer.values - 1) * 1.001 / 2
    offset = torch.where(quantizer.values % 2 == 0, 0.5, 0.0)
    whole = quantizer.lookup(every).unflatten(-1, (2, 3)) * (quantizer.values // 2)
    z = ((whole + offset) / half).atanh() - (offset / half).atanh()
    assert torch.equal(quantizer.encode(z.flatten(1)), every)


def test_groups_do_not_mix():
    quantizer = FiniteScalarQuantizer(2, (5, 5))
    z = some(100, 4)
    changed = z.clone()
    changed[:, 2:] = some(100, 2, seed=1)
    assert torch.equal(quantizer.encode(z)[:, 0], quantizer.encode(changed)[:, 0])
    assert not torch.equal(quantizer.encode(z)[:, 1], quantizer.encode(changed)[:, 1])


def test_the_gradient_is_that_of_the_bound():
    quantizer = FiniteScalarQuantizer(1, (5, 3))
    z = some(20, 2).requires_grad_()
    quantizer(z).vectors.sum().backward()
    bound = z.detach().clone().requires_grad_()
    (quantizer.bound(bound[:, None]) / (quantizer.values // 2)).sum().backward()
    torch.testing.assert_close(z.grad, bound.grad)
    assert (z.grad > 0).all()


def test_two_values_are_refused():
    with pytest.raises(ValueError, match="3 values"):
        FiniteScalarQuantizer(1, (2, 5))


SMALL = {"width": 32, "n_heads": 2, "encoder_layers": 1, "decoder_layers": 1, "n_levels": 2}


def test_a_tokenizer_with_fsq_decodes_what_it_encodes():
    torch.manual_seed(0)
    network = Tokenizer(
        TokenizerConfig(**SMALL, codebook_size=48, quantizer="fsq", fsq_values=(4, 4, 3), code_dim=6)
    ).eval()
    samples, valid = torch.randn(1, 3, 4, 150), torch.ones(1, 3, 4, dtype=torch.bool)
    lead_ids = torch.tensor([[1, 2, 3]])
    codes = network.codes(samples, valid, lead_ids)
    assert codes.shape == (1, 3, 4, 2)
    torch.testing.assert_close(network.decode(codes, valid, lead_ids), network(samples, valid, lead_ids).views.samples)
    assert not hasattr(network.quantizer, "counts")  # nothing to learn


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValidationError, match="code_dim 6"):
        TokenizerConfig(**SMALL, codebook_size=48, quantizer="fsq", fsq_values=(4, 4, 3), code_dim=64)
