"""Trained networks -> a checkpoint folder: float16 safetensors, and ONNX graphs that point into them.

Every weight is stored once. The graphs' initializers are ONNX *external data* whose location is ``model.safetensors``
and whose offset is where that file keeps the tensor; a Cast widens each to float32 when a runtime loads the graph.
The released model *is* the rounded one: the torch networks are rounded in the same way before anything is measured.
"""

import copy
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anyecg.checkpoint import FORMAT_VERSION, file_sha256, open_checkpoint
from anyecg.models.eight_bits import FastEncoderGraph, GuessGraph, quantize
from anyecg.models.encoder import Encoder
from anyecg.models.heads import RecordHead
from anyecg.models.sizes import EncoderConfig, ModelConfig
from anyecg.models.tokenizer import Tokenizer

WEIGHTS = "model.safetensors"
OPSET = 20
"""The first with GELU as one operator."""
IN_EIGHT_BITS = ("encoder_int8.onnx",)
ON_WINDOWS = ("features",)
"""Inputs that belong to a window and not to a lead of it."""
TRAINING_ONLY = ("quantizer.counts", "quantizer.started")
"""State that only training needs: how often each code was used of late."""


class TokenizerEncoderGraph(nn.Module):
    """samples (B, L, P, S), valid (B, L, P), lead_ids (B, L) -> codes (B, L, P, K)."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, samples: Tensor, valid: Tensor, lead_ids: Tensor) -> Tensor:
        """Tokenise."""
        return self.tokenizer.codes(samples, valid, lead_ids)


class TokenizerDecoderGraph(nn.Module):
    """codes (B, L, P, K), valid (B, L, P), lead_ids (B, L) -> samples (B, L, P, S)."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, codes: Tensor, valid: Tensor, lead_ids: Tensor) -> Tensor:
        """Decode."""
        return self.tokenizer.decode(codes, valid, lead_ids)


class EncoderGraph(nn.Module):
    """A window's codes -> embeddings of the chosen layer, and what the model thinks of each place.

    ``embeddings`` (B, L, P, D); ``nll`` (B, L, P, K), -log p of each code, nats; ``log_p`` (B, L, P, K, V) of all
    codes; ``log_rms`` (B, L), the guessed natural logarithm of each lead's RMS in mV; ``layer_0 layer_1 ...``
    (B, L, P, D), all other layers: what heads begin from.
    """

    def __init__(self, encoder: Encoder, layer: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.layer = layer
        self.others = [k for k in range(encoder.config.n_layers + 1) if k != layer]
        self.outputs = ["embeddings", "nll", "log_p", "log_rms", *(f"layer_{k}" for k in self.others)]

    def forward(
        self, codes: Tensor, valid: Tensor, mask: Tensor, lead_ids: Tensor, log_scale: Tensor, scale_known: Tensor
    ) -> tuple[Tensor, ...]:
        """Encode."""
        layers = self.encoder(codes, valid, mask, lead_ids, log_scale, scale_known)
        log_p = self.encoder.guess(layers[-1]).log_softmax(dim=-1)  # (B, L, P, K, V)
        nll = -log_p.gather(-1, codes.clamp_min(0).unsqueeze(-1)).squeeze(-1)
        log_rms = self.encoder.guess_amplitude(layers[-1], valid)
        return layers[self.layer], nll, log_p, log_rms, *(layers[k] for k in self.others)


def write_checkpoint(
    folder: Path,
    tokenizer: Tokenizer,
    encoder: Encoder,
    *,
    embedding_layer: int,
    facts: dict[str, Any],
) -> Path:
    """Write config, weights and graphs.

    ``facts`` are the config's free entries: name, version, licence, trained_on and the like. The networks are rounded
    to float16 in place: what is measured afterwards is what ships.
    """
    folder.mkdir(parents=True, exist_ok=True)
    round_to_half(tokenizer)
    round_to_half(encoder)
    offsets = write_weights(folder / WEIGHTS, tokenizer, encoder)
    sizes = ModelConfig(tokenizer=tokenizer.config, encoder=encoder.config)
    for name, graph, inputs, outputs, longest in _graphs(tokenizer, encoder, embedding_layer):
        write_graph(folder / name, graph, inputs, outputs, longest, offsets, in_eight_bits=name in IN_EIGHT_BITS)
    config = {
        "format_version": FORMAT_VERSION,
        **facts,
        "model": sizes.model_dump(mode="json"),
        "embedding_layer": embedding_layer,
        "parameters": sum(count_parameters(sizes).values()),
        "files": {path.name: file_sha256(path) for path in sorted([folder / WEIGHTS, *folder.glob("*.onnx")])},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return folder


def count_parameters(config: ModelConfig) -> dict[str, int]:
    """Build the networks, without memory for their weights, and count: ``{"tokenizer": n, "encoder": n}``.

    Codebooks count, although averages and not gradients move them.
    """
    with torch.device("meta"):
        tokenizer = Tokenizer(config.tokenizer)
        encoder = Encoder(config.encoder, config.tokenizer, tokenizer.quantizer.codebooks)
    counts = {"tokenizer": sum(p.numel() for p in tokenizer.parameters())}
    counts["encoder"] = sum(p.numel() for p in encoder.parameters())
    if config.tokenizer.quantizer == "cosine-vq" and not config.tokenizer.codebook_gradient:
        counts["tokenizer"] += tokenizer.quantizer.codebooks.numel()
    return counts


def round_to_half(network: nn.Module) -> None:
    """Round every weight and buffer to the nearest float16, kept as float32."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())


def released_state(tokenizer: Tokenizer, encoder: Encoder) -> dict[str, Tensor]:
    """Return the float16 tensors a checkpoint holds, named ``tokenizer.*`` and ``encoder.*``."""
    state = {f"tokenizer.{k}": v for k, v in tokenizer.state_dict().items() if k not in TRAINING_ONLY}
    state |= {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
    return {k: v.half().contiguous() for k, v in state.items()}


def write_weights(path: Path, tokenizer: Tokenizer, encoder: Encoder) -> dict[str, int]:
    """Write the safetensors file; return each tensor's offset from the start of the file, in bytes."""
    from safetensors.torch import save_file

    save_file(released_state(tokenizer, encoder), path, metadata={"format": "pt"})
    with open(path, "rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(header_size))
    return {name: 8 + header_size + entry["data_offsets"][0] for name, entry in header.items() if name[:2] != "__"}


def load_networks(folder: Path) -> tuple[Tokenizer, Encoder]:
    """Return the torch networks of a checkpoint folder, float32, in eval mode. The load is strict."""
    from safetensors.torch import load_file

    config = open_checkpoint(folder).config
    sizes = ModelConfig(**config["model"])
    tokenizer = Tokenizer(sizes.tokenizer)
    state = {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()}
    training_only = {}
    if sizes.tokenizer.quantizer == "cosine-vq":
        training_only = {"quantizer.counts": tokenizer.quantizer.counts, "quantizer.started": torch.tensor(True)}
    tokenizer.load_state_dict(_part(state, "tokenizer.") | training_only)
    encoder = Encoder(sizes.encoder, sizes.tokenizer, tokenizer.quantizer.codebooks)
    encoder_state = _part(state, "encoder.")
    if config.get("upgraded_from") == 1:
        encoder_state = with_new_heads(encoder_state, encoder)
    encoder.load_state_dict(encoder_state)
    return tokenizer.eval(), encoder.eval()


def with_new_heads(state: dict[str, Tensor], encoder: Encoder) -> dict[str, Tensor]:
    """Upgrade weights of checkpoint format 1, which had no heads for amplitude and demography: zeros, untrained."""
    heads = ("to_amplitude.weight", "to_amplitude.bias", "to_demography.weight", "to_demography.bias")
    return {name: torch.zeros_like(encoder.state_dict()[name]) for name in heads} | state


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _graphs(
    tokenizer: Tokenizer, encoder: Encoder, layer: int
) -> list[tuple[str, nn.Module, dict[str, Tensor], list[str], int]]:
    """Return each graph's file name, module, example inputs, outputs and longest input in fragments."""
    config = tokenizer.config
    blocks, leads, fragments = 2, 3, 7  # examples only: all three are free in the graph
    samples = torch.randn(blocks, leads, fragments, config.fragment_samples)
    valid = torch.ones(blocks, leads, fragments, dtype=torch.bool)
    lead_ids = torch.arange(leads).expand(blocks, leads).contiguous()
    codes = torch.randint(config.codebook_size, (blocks, leads, fragments, config.n_levels))
    on_tokens = {"valid": valid, "lead_ids": lead_ids}
    window = {
        "codes": codes,
        "valid": valid,
        "mask": torch.zeros_like(valid),
        "lead_ids": lead_ids,
        "log_scale": torch.zeros(blocks, leads),
        "scale_known": torch.ones(blocks, leads, dtype=torch.bool),
    }
    last = torch.randn(blocks, leads, fragments, encoder.config.width)
    n_block, n_window = config.block_fragments, encoder.config.max_fragments
    return [
        (
            "tokenizer_encoder.onnx",
            *(TokenizerEncoderGraph(tokenizer), {"samples": samples, **on_tokens}, ["codes"], n_block),
        ),
        (
            "tokenizer_decoder.onnx",
            *(TokenizerDecoderGraph(tokenizer), {"codes": codes, **on_tokens}, ["samples"], n_block),
        ),
        ("encoder.onnx", whole := EncoderGraph(encoder, layer), window, whole.outputs, n_window),
        ("encoder_int8.onnx", fast := FastEncoderGraph(encoder, layer), window, fast.outputs, n_window),
        ("guess.onnx", GuessGraph(encoder), {"last": last, "codes": codes}, ["nll"], n_window),
    ]


def write_graph(
    path: Path,
    graph: nn.Module,
    inputs: dict[str, Tensor],
    outputs: list[str],
    longest: int,
    offsets: dict[str, int],
    *,
    in_eight_bits: bool = False,
) -> None:
    """Export one graph and let its weights point into the safetensors file beside it."""
    import onnx

    model = onnx_of(graph, inputs, outputs, longest)
    if in_eight_bits:
        quantize(model)
    state = {name: tensor.detach().numpy() for name, tensor in (*graph.named_parameters(), *graph.named_buffers())}
    point_into_weights(model, state, offsets | {"encoder.codebooks": offsets["tokenizer.quantizer.codebooks"]})
    onnx.save_model(model, str(path))


def onnx_of(graph: nn.Module, inputs: dict[str, Tensor], outputs: list[str], longest: int) -> Any:
    """Export a network to ONNX, free in the number of blocks and leads, and of fragments up to ``longest``."""
    free = {name: torch.export.Dim(name) for name in ("blocks", "leads", "fragments")}
    free["fragments"] = torch.export.Dim("fragments", max=longest)
    shapes = {name: {0: free["blocks"]} for name in inputs}
    for name, x in inputs.items():
        if name not in ON_WINDOWS:
            shapes[name] |= {1: free["leads"]} | ({2: free["fragments"]} if x.ndim > 2 else {})
    return quietly_exported(
        graph,
        inputs,
        outputs,
        tuple(shapes.values()),
        optimize=False,  # the optimizer transposes weights; then their bytes could not be shared
        external_data=False,
    )


def quietly_exported(
    graph: nn.Module, inputs: dict[str, Tensor], outputs: list[str], shapes: tuple[Any, ...], **options: Any
) -> Any:
    """Export a network to an ONNX model; ``shapes`` say of each input which axes are free."""
    with warnings.catch_warnings():
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it lists what it does not need
        warnings.simplefilter("ignore")  # the exporter warns about torch's own internals; the tests check its graphs
        program = torch.onnx.export(
            graph.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=shapes,
            dynamo=True,
            verbose=False,
            **{"opset_version": OPSET, **options},
        )
    assert program is not None
    return _without_traces(program.model_proto)


class OneRow(nn.Module):
    """features (B, F, N) -> what a network answers, (B, N), its convolutions now over pictures of one row.

    The runtime's fast convolutions are for pictures alone. `network` stays as it is.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        for part in list(self.network.modules()):
            for name, layer in part.named_children():
                if isinstance(layer, nn.Conv1d | nn.BatchNorm1d):
                    setattr(part, name, _over_rows(layer))

    def forward(self, features: Tensor) -> Tensor:
        """Answer."""
        answer: Tensor = self.network(features[:, :, None])  # (B, 1, N)
        return answer[:, 0]


def _over_rows(layer: nn.Conv1d | nn.BatchNorm1d) -> nn.Module:
    """Return the layer that does to (B, D, 1, N) what this one does to (B, D, N)."""
    weights = layer.state_dict()
    if isinstance(layer, nn.BatchNorm1d):
        norm = nn.BatchNorm2d(layer.num_features)
        norm.load_state_dict(weights)
        return norm
    assert not isinstance(layer.padding, str)
    (size,), (padding,), (dilation,) = layer.kernel_size, layer.padding, layer.dilation
    over = nn.Conv2d(layer.in_channels, layer.out_channels, (1, size), padding=(0, padding), dilation=(1, dilation))
    over.load_state_dict(weights | {"weight": weights["weight"][:, :, None]})
    return over


def _without_traces(model: Any) -> Any:
    """Remove what the exporter notes of the machine it ran on: the files and lines that each node came from."""
    graph = model.graph
    values = (*graph.value_info, *graph.input, *graph.output)
    for part in (model, graph, *model.functions, *graph.node, *values):
        del part.metadata_props[:]
        part.doc_string = ""
    for function in model.functions:
        for node in function.node:
            del node.metadata_props[:]
            node.doc_string = ""
    return model


def export_head(head: RecordHead, encoder: EncoderConfig) -> bytes:
    """Export a head: hidden (B, L, P, D), valid, lead_ids, features (B, F) -> logits (B, C). Its weights lie inside."""
    import onnx

    blocks, leads, fragments = 2, 3, 7
    inputs = {
        "hidden": torch.randn(blocks, leads, fragments, encoder.width),
        "valid": torch.ones(blocks, leads, fragments, dtype=torch.bool),
        "lead_ids": torch.arange(leads).expand(blocks, leads).contiguous(),
        "features": torch.randn(blocks, len(head.feature_mean)),
    }
    model = onnx_of(head, inputs, ["logits"], encoder.max_fragments)
    casts, halves = [], []
    for initializer in model.graph.initializer:
        if initializer.data_type == onnx.TensorProto.FLOAT:
            half = onnx.numpy_helper.to_array(initializer).astype(np.float16)
            halves.append(onnx.numpy_helper.from_array(half, f"{initializer.name}.half"))
            casts.append(
                onnx.helper.make_node("Cast", [halves[-1].name], [initializer.name], to=onnx.TensorProto.FLOAT)
            )
        else:
            halves.append(initializer)
    replace_initializers(model, halves, casts)
    return bytes(model.SerializeToString())


def point_into_weights(model: Any, state: dict[str, np.ndarray], offsets: dict[str, int]) -> None:
    """Replace each float initializer that is a stored tensor by a reference into the safetensors file, and a Cast."""
    from onnx import TensorProto, helper, numpy_helper

    casts, kept = [], []
    for initializer in model.graph.initializer:
        stored = initializer.name if initializer.name in state and initializer.name in offsets else None
        if stored is None or initializer.data_type != TensorProto.FLOAT:
            kept.append(initializer)
            continue
        if not np.array_equal(numpy_helper.to_array(initializer), state[stored]):
            raise AssertionError(f"{stored} was changed by the exporter: its bytes cannot be shared")
        half = TensorProto(name=f"{stored}.half", data_type=TensorProto.FLOAT16, dims=initializer.dims)
        half.data_location = TensorProto.EXTERNAL
        n_bytes = int(np.prod(initializer.dims)) * 2
        for key, value in (("location", WEIGHTS), ("offset", offsets[stored]), ("length", n_bytes)):
            half.external_data.add(key=key, value=str(value))
        kept.append(half)
        casts.append(helper.make_node("Cast", [half.name], [initializer.name], to=TensorProto.FLOAT))
    replace_initializers(model, kept, casts)


def replace_initializers(model: Any, kept: list[Any], casts: list[Any]) -> None:
    """Give a graph other initializers, and casts before its nodes."""
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
