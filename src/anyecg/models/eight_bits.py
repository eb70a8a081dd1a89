"""The encoder as graphs for long recordings: its linear layers multiply in 8 bits, its guess is a graph of its own.

``encoder_int8.onnx`` holds no weights either: it points into the checkpoint's safetensors file, and the runtime makes
the 8-bit weights when it opens the graph. What it computes is `anyecg.models.encoder.Encoder`, but for the rounding of
the linear layers' inputs and weights (dynamic quantisation: one scale a tensor, one a column of the weights). Weights
have 7 bits and a sign: processors without VNNI add two products in 16 bits, where 8 bits would overflow unnoticed.

Attention is written anew: a mask over all pairs of a window's tokens, the same for all layers, instead of one family
of scores a direction. It multiplies more, in a few large products instead of thousands of small ones.

Shapes: B windows, L leads, P fragments, S = L P tokens, D width, H heads, K levels, V codebook size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anyecg.models.attention import GridBlock
from anyecg.models.encoder import Encoder

LARGEST = 63
"""Of a weight in 7 bits and a sign bit: 255 * 63 * 2 stays below 2**15."""

CLOSED = -1e9
"""Score of a pair that may not look at each other."""


class FastEncoderGraph(nn.Module):
    """A window's codes -> ``embeddings`` of the chosen layer and the ``last`` layer, (B, L, P, D) each."""

    def __init__(self, encoder: Encoder, layer: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.layer = layer
        self.outputs = ["embeddings", "last"]

    def forward(
        self, codes: Tensor, valid: Tensor, mask: Tensor, lead_ids: Tensor, log_scale: Tensor, scale_known: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Encode."""
        x = self.encoder.embed(codes, mask, lead_ids, log_scale, scale_known)  # (B, L, P, D)
        shape = x.shape[1:3]
        bias = self._bias(valid)
        x = x.flatten(1, 2)  # (B, S, D)
        layers = [x]
        for block in self.encoder.blocks:
            assert isinstance(block, GridBlock)
            x = _through(block, x, bias)
            layers.append(x)
        layers[-1] = self.encoder.norm(x)
        return layers[self.layer].unflatten(1, shape), layers[-1].unflatten(1, shape)

    def _bias(self, valid: Tensor) -> Tensor:
        """Return what is added to the score of each pair of tokens, (B, 1, S, S)."""
        config = self.encoder.config
        n_leads, n_positions = valid.shape[1:]
        lead = torch.arange(n_leads)[:, None].expand(n_leads, n_positions).flatten()
        at = torch.arange(n_positions)[None].expand(n_leads, n_positions).flatten()
        own_lead = lead[:, None] == lead
        aside = (at[:, None] - at).abs() <= config.tolerance
        reach = {"own-lead": own_lead, "cardio-sparse": own_lead | aside, "full": own_lead | ~own_lead}[config.reach]
        return torch.where(reach & valid.flatten(1)[:, None, :], 0.0, CLOSED)[:, None]


class GuessGraph(nn.Module):
    """The last layer (B, L, P, D), codes (B, L, P, K) -> ``nll`` (B, L, P, K): -log p of each code, nats."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, last: Tensor, codes: Tensor) -> Tensor:
        """Guess; the same as `Encoder.guess`, level by level."""
        encoder = self.encoder
        queries = encoder.to_query(last).unflatten(-1, (encoder.n_levels, -1))
        queries = queries.movedim(-2, 0).flatten(1, 3)  # (K, B L P, C)
        directions = F.normalize(encoder.codebooks, dim=-1).transpose(-1, -2)
        logits = queries @ directions + encoder.log_frequency[:, None]  # (K, B L P, V)
        known = codes.clamp_min(0).flatten(0, 2).t().unsqueeze(-1)
        nll = logits.logsumexp(dim=-1) - logits.gather(-1, known).squeeze(-1)
        return nll.t().unflatten(0, codes.shape[:3])


def _through(block: GridBlock, x: Tensor, bias: Tensor) -> Tensor:
    """`GridBlock.forward` on all tokens of a window (B, S, D) at once."""
    qkv = block.qkv(block.attention_norm(x)).unflatten(-1, (3, block.n_heads, -1))  # (B, S, 3, H, d)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()  # each (B, H, S, d)
    weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2) + bias).softmax(dim=-1)
    x = x + block.project((weights @ v).permute(0, 2, 1, 3).flatten(-2))
    return x + block.contract(F.gelu(block.expand(block.mlp_norm(x))))


def quantize(model: Any) -> None:
    """Let every linear layer of a graph multiply in 8 bits; what it needs is computed from its float weights.

    Of a layer the exporter makes Transpose(weight), MatMul, Add(bias). The runtime folds what follows from a weight
    alone when it opens the graph.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    weights = {initializer.name for initializer in graph.initializer}
    transposed = {n.output[0] for n in graph.node if n.op_type == "Transpose" and n.input[0] in weights}
    biased = {n.input[0]: n for n in graph.node if n.op_type == "Add" and n.input[1] in weights}
    largest = numpy_helper.from_array(torch.tensor(float(LARGEST)).numpy(), "int8.largest")
    axis = numpy_helper.from_array(torch.tensor([0]).numpy(), "int8.axis")
    nodes, done = [], set()
    for node in graph.node:
        if node.name in done:
            continue
        if node.op_type != "MatMul" or node.input[1] not in transposed:
            nodes.append(node)
            continue
        x, weight = node.input
        add = biased.get(node.output[0])
        outputs, bias = (add.output, add.input[1]) if add is not None else (node.output, "")
        done.add(add.name if add is not None else "")
        size, scale, level, whole, eight = (f"{weight}.{step}" for step in ("abs", "scale", "level", "whole", "int8"))
        nodes += [
            helper.make_node("Abs", [weight], [size]),
            helper.make_node("ReduceMax", [size, axis.name], [f"{size}.max"], keepdims=0),
            helper.make_node("Div", [f"{size}.max", largest.name], [scale]),
            helper.make_node("Div", [weight, scale], [level]),
            helper.make_node("Round", [level], [whole]),
            helper.make_node("Cast", [whole], [eight], to=TensorProto.INT8),
            helper.make_node(
                "DynamicQuantizeMatMul", [x, eight, scale, "", bias], list(outputs), domain="com.microsoft"
            ),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    graph.initializer.extend([largest, axis])
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
