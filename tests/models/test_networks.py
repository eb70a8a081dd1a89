"""Tokenizer and encoder: shapes, invariances, the wavelet view, measured sizes."""

import numpy as np
import pytest
import pywt
import torch

from anyecg.models.encoder import Encoder
from anyecg.models.sizes import PRESETS, EncoderConfig, TokenizerConfig
from anyecg.models.tokenizer import Tokenizer

TINY = TokenizerConfig(
    width=16, n_heads=2, encoder_layers=1, decoder_layers=1, codebook_size=16, code_dim=8, n_levels=2
)
TINY_ENCODER = EncoderConfig(width=16, n_layers=2, n_heads=2)


@pytest.fixture
def tokenizer():
    torch.manual_seed(0)
    return Tokenizer(TINY).eval()


def fragments(n_leads, n_fragments, seed=0):
    samples = torch.randn(2, n_leads, n_fragments, 150, generator=torch.Generator().manual_seed(seed))
    return samples, torch.ones(2, n_leads, n_fragments, dtype=torch.bool), torch.zeros(2, n_leads, dtype=torch.long)


@pytest.mark.parametrize(("n_leads", "n_fragments"), [(1, 20), (12, 20), (3, 1), (16, 7)])
def test_any_leads_and_any_length(tokenizer, n_leads, n_fragments):
    samples, valid, lead_ids = fragments(n_leads, n_fragments)
    codes = tokenizer.codes(samples, valid, lead_ids)
    assert codes.shape == (2, n_leads, n_fragments, 2)
    assert tokenizer.decode(codes, valid, lead_ids).shape == samples.shape
    encoder = Encoder(TINY_ENCODER, TINY, torch.randn(2, 16, 8)).eval()
    layers = encoder(codes, valid, ~valid, lead_ids, torch.zeros(2, n_leads), torch.ones(2, n_leads, dtype=torch.bool))
    assert [layer.shape for layer in layers] == [(2, n_leads, n_fragments, 16)] * 3
    assert encoder.guess(layers[-1]).shape == (2, n_leads, n_fragments, 2, 16)


def test_absent_leads_do_not_change_codes(tokenizer):
    samples, valid, lead_ids = fragments(3, 20)
    alone = tokenizer.codes(samples[:, :2], valid[:, :2], lead_ids[:, :2])
    valid[:, 2] = False
    assert torch.equal(tokenizer.codes(samples, valid, lead_ids)[:, :2], alone)


def test_codes_of_a_lead_do_not_depend_on_the_others():
    """By default the tokenizer's encoder looks along the own lead; as in the paper it looks across, too."""
    samples, valid, lead_ids = fragments(3, 20)

    def changed(reach):
        torch.manual_seed(0)
        tokenizer = Tokenizer(TINY.model_copy(update={"encoder_reach": reach})).eval()
        return (tokenizer.encode(samples, valid, lead_ids)[:, :1] - tokenizer.encode(
            samples[:, :1], valid[:, :1], lead_ids[:, :1]
        )).abs().max()  # fmt: skip

    assert TINY.encoder_reach == "own-lead"
    assert changed("own-lead") < 1e-6
    assert changed("cardio-sparse") > 1e-3


def test_the_guessed_amplitude_leaves_out_what_is_not_valid():
    encoder = Encoder(TINY_ENCODER, TINY, torch.randn(2, 16, 8)).eval()
    x, valid = torch.randn(1, 2, 5, 16), torch.ones(1, 2, 5, dtype=torch.bool)
    valid[0, 0, 3:] = False
    guess = encoder.guess_amplitude(x, valid)
    assert guess.shape == (1, 2)
    x[0, 0, 3:] = 99.0
    torch.testing.assert_close(encoder.guess_amplitude(x, valid), guess)


def test_hidden_codes_do_not_reach_the_encoder():
    encoder = Encoder(TINY_ENCODER, TINY, torch.randn(2, 16, 8)).eval()
    codes = torch.randint(16, (1, 3, 6, 2))
    valid, lead_ids = torch.ones(1, 3, 6, dtype=torch.bool), torch.zeros(1, 3, dtype=torch.long)
    mask = torch.zeros_like(valid)
    mask[0, 1, 2] = True  # True = hidden
    amplitudes = (torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool))
    before = encoder(codes, valid, mask, lead_ids, *amplitudes)[-1]
    codes[0, 1, 2] = (codes[0, 1, 2] + 1) % 16
    torch.testing.assert_close(encoder(codes, valid, mask, lead_ids, *amplitudes)[-1], before, rtol=0, atol=0)
    assert not torch.allclose(encoder(codes, valid, ~valid, lead_ids, *amplitudes)[-1], before)


def test_an_unknown_amplitude_is_not_used():
    encoder = Encoder(TINY_ENCODER, TINY, torch.randn(2, 16, 8)).eval()
    codes = torch.randint(16, (1, 2, 6, 2))
    valid, lead_ids = torch.ones(1, 2, 6, dtype=torch.bool), torch.zeros(1, 2, dtype=torch.long)

    def embed(log_scale, known):
        return encoder(codes, valid, ~valid, lead_ids, torch.full((1, 2), log_scale), torch.full((1, 2), known))[-1]

    torch.testing.assert_close(embed(0.0, False), embed(3.0, False), rtol=0, atol=0)
    assert not torch.allclose(embed(0.0, True), embed(3.0, True))


def test_the_wavelet_view_is_pywavelets_transform(tokenizer):
    row = np.random.default_rng(0).normal(size=150).astype(np.float32)
    c_a, c_d3, c_d2, c_d1 = pywt.wavedec(row, "db6", level=3)
    expected = np.concatenate([c_a, c_d3, c_d2])  # cD1 lies above the pass-band
    view = tokenizer.wavelet_view(torch.from_numpy(row)[None, None, None])[0, 0, 0].numpy()
    np.testing.assert_allclose(view, expected, atol=1e-5)
    assert len(c_d1) + len(expected) == len(np.concatenate(pywt.wavedec(row, "db6", level=3)))
    assert set(tokenizer.wavelet_bands_hz) == {0.0, 18.75, 37.5}


def test_the_papers_preset_has_the_papers_sizes():
    config = PRESETS["paper"].tokenizer
    assert (config.fragment_samples, config.fs_hz) == (300, 300.0)
    assert (config.n_levels, config.codebook_size, config.code_dim) == (1, 8192, 64)
    tokenizer = Tokenizer(config).eval()
    assert (
        tokenizer.codes(
            torch.randn(1, 2, 3, 300), torch.ones(1, 2, 3, dtype=torch.bool), torch.zeros(1, 2).long()
        ).max()
        < 8192
    )


def test_an_unknown_size_is_an_error():
    with pytest.raises(ValueError, match="extra"):
        TokenizerConfig(widht=3)
    with pytest.raises(ValueError, match="no multiple"):
        TokenizerConfig(width=100, n_heads=6)
