"""Cardio-sparse attention equals the dense masked reference, forward and gradient."""

import pytest
import torch
from torch.nn import functional as F

from anyecg.models.attention import GridBlock, cardio_sparse_attention, full_attention, own_lead_attention


def dense_reference(q, k, v, valid, tolerance, reach="cardio-sparse"):
    """Return attention over all L * P keys under a -inf mask: slow and clear."""
    n_leads, n_positions = q.shape[2:4]
    lead = torch.arange(n_leads).repeat_interleave(n_positions)
    position = torch.arange(n_positions).repeat(n_leads)
    same_lead = lead[:, None] == lead
    near = (position[:, None] - position).abs() <= tolerance
    seen = {"cardio-sparse": same_lead | near, "own-lead": same_lead, "full": torch.ones_like(same_lead)}[reach]
    allowed = seen & valid.flatten(1)[:, None, :]  # (B, L P, L P)
    flat = [x.flatten(2, 3) for x in (q, k, v)]  # (B, H, L P, d)
    mixed = F.scaled_dot_product_attention(*flat, attn_mask=allowed[:, None])
    return mixed.unflatten(2, (n_leads, n_positions))


def random_qkv(n_leads, n_positions, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 3, n_leads, n_positions, 8)
    return [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("tolerance", [0, 1, 3])
@pytest.mark.parametrize(("n_leads", "n_positions"), [(1, 9), (3, 5), (12, 4), (2, 1), (1, 1)])
def test_equals_the_dense_reference_forward_and_gradient(n_leads, n_positions, tolerance):
    q, k, v = random_qkv(n_leads, n_positions)
    valid = torch.ones(2, n_leads, n_positions, dtype=torch.bool)
    if n_leads > 1:
        valid[0, 1] = False  # an absent lead
    if n_positions > 3:
        valid[1, 0, -1] = False  # a gap
    shown = valid[:, None, ..., None]  # what a token that is not valid gets means nothing

    sparse = cardio_sparse_attention(q, k, v, valid, tolerance) * shown
    sparse_gradients = torch.autograd.grad(sparse.square().sum(), (q, k, v))
    dense = torch.where(shown, dense_reference(q, k, v, valid, tolerance), 0.0)
    dense_gradients = torch.autograd.grad(dense.square().sum(), (q, k, v))

    torch.testing.assert_close(sparse, dense, rtol=1e-10, atol=1e-12)
    for ours, reference in zip(sparse_gradients, dense_gradients, strict=True):
        torch.testing.assert_close(ours, reference.nan_to_num(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("reach", "attention"), [("own-lead", own_lead_attention), ("full", full_attention)])
def test_the_two_it_stands_between_equal_the_dense_reference(reach, attention):
    q, k, v = random_qkv(3, 5)
    valid = torch.ones(2, 3, 5, dtype=torch.bool)
    valid[0, 1, :3] = False
    shown = valid[:, None, ..., None]
    dense = torch.where(shown, dense_reference(q, k, v, valid, 0, reach), 0.0)
    torch.testing.assert_close(attention(q, k, v, valid) * shown, dense, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("reach", "sees"), [("own-lead", 0), ("cardio-sparse", 1), ("full", 4)])
def test_a_block_sees_as_far_as_its_reach(reach, sees):
    torch.manual_seed(0)
    block = GridBlock(16, 2, reach=reach).eval()
    x, valid = torch.randn(1, 2, 4, 16), torch.ones(1, 2, 4, dtype=torch.bool)
    changed = x.clone()
    changed[0, 1, 2] = torch.randn(16)
    moved = (block(changed, valid) - block(x, valid)).abs().amax(dim=-1)[0] > 1e-6  # (L, P)
    assert int(moved[0].sum()) == sees
    assert moved[1].all()


def test_other_leads_at_other_times_are_out_of_sight():
    q, k, v = random_qkv(3, 6)
    valid = torch.ones(2, 3, 6, dtype=torch.bool)
    before = cardio_sparse_attention(q, k, v, valid)
    changed = v.detach().clone()
    changed[:, :, 1, 4] += 100.0
    moved = (cardio_sparse_attention(q, k, changed, valid) - before).abs().amax(dim=(0, 1, 4)) > 1e-9  # (L, P)
    expected = torch.zeros(3, 6, dtype=torch.bool)
    expected[1, :] = True  # its own lead, at any time
    expected[:, 4] = True  # any lead, at its own time
    assert torch.equal(moved, expected)


def test_what_is_not_valid_changes_nothing():
    block = GridBlock(16, 2).eval()
    x = torch.randn(1, 3, 5, 16)
    valid = torch.ones(1, 3, 5, dtype=torch.bool)
    valid[0, 2] = False
    three = block(x, valid)[:, :2]
    two = block(x[:, :2], valid[:, :2])
    torch.testing.assert_close(three, two)


def test_pairs_are_far_fewer_than_dense():
    n_leads, n_positions = 12, 60
    pairs = n_leads * n_positions * (n_positions + n_leads - 1)
    assert pairs == 51_120  # the figure of the method's description, against 518,400
