"""The published VAR (arXiv 2404.02905) as a weight file of ours: `dreamwalk import var`.

huggingface.co/FoundationVision/var has it under the MIT licence, as pickled dicts of tensors, which are
opened only with `--unsafe-pickle`; the same tensors as .safetensors are taken without. The tokenizer,
`vae_ch160v4096z32.pth`, is one for all sizes, and becomes a codec of tokens, `codecs/tokens.py`:

    encoder, decoder, quant_conv, post_quant_conv    VQGAN, `codecs/vqgan.py`
    quantize.embedding                               one codebook for all scales, Euclidean
    quantize.quant_resi                              four convolutions for ten scales, half of each
    quantize.ema_vocab_hit_SV                        how often codes were used; not read

The gains of our stages, which theirs have not, are one. What training goes on from and the file does not say,
is as after many steps with equal use of all codes, or else the first step would begin codes anew.

With a transformer, `var_d16.pth` to `var_d30.pth`, it becomes the system `nextscale`. Their keys have no bias
but for zeros in the file, and numbers of scales and their mask lie there too, which we compute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor

from dreamwalk.backbones.scaleformer import ScaleFormerConfig
from dreamwalk.codecs.residual_quantizers import MultiScaleConfig
from dreamwalk.codecs.tokens import TokenCodec, TokenCodecConfig
from dreamwalk.codecs.vector_quantizer import VQConfig
from dreamwalk.codecs.vqgan import VQGANCodec, VQGANConfig
from dreamwalk.errors import UserError
from dreamwalk.published.names import Parts, Renamed, TensorPart, renamed, shapes_of, translation
from dreamwalk.published.pickles import places_of, safe_or_pickled
from dreamwalk.systems.autoencode import AutoencodeConfig
from dreamwalk.systems.nextscale import NextScaleConfig
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json

VAR = "FoundationVision/var"
TOKENIZER = "vae_ch160v4096z32.pth"
LAYOUT, TRANSFORMER = "the tokenizer of VAR", "a transformer of VAR"
VARSize = Literal[256, 512]
VAR_SCALES = {256: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16), 512: (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)}
"""Tokens a side of each scale, by the side of pictures."""
VAR_NAMES = {
    "quantizer.codes.0.codebook": "quantize.embedding.weight",
    "quantizer.filters.": "quantize.quant_resi.qresi_ls.",
    ".skip.": ".nin_shortcut.",
    ".out.": ".proj_out.",
}
"""Parts of our names and of theirs, behind those of layers: `encoder_names` and `decoder_names`."""
ROOT_NAMES = {
    "embed.": "word_embed.",
    "classes.": "class_emb.",
    "start": "pos_start",
    "place": "pos_1LC",
    "scale.": "lvl_embed.",
    "modulation.project": "head_nm.ada_lin.1",
}
BLOCK_NAMES = {
    ".attention.qkv": ".attn.mat_qkv",
    ".attention.out": ".attn.proj",
    ".attention.sharpness": ".attn.scale_mul_1H11",
    ".feedforward.0": ".ffn.fc1",
    ".feedforward.2": ".ffn.fc2",
    ".modulation.project": ".ada_lin.1",
}
"""The same for the transformer."""
HITS = "quantize.ema_vocab_hit_SV"
SIZED = {"encoder.conv_in.weight": 4, "quantize.embedding.weight": 2}
"""Tensors that tell the sizes, and the axes that they have."""
TRANSFORMER_SIZED = {"word_embed.weight": 2, "class_emb.weight": 2, "head.weight": 2}
TRANSFORMER_SIZED |= {"blocks.0.attn.scale_mul_1H11": 4}
COMPUTED = "lvl_1L", "attn_bias_for_masking"
SHARED = "shared_ada_lin.1.weight"
MEASURED = {"power", "overlap", "energy", "steps", "share", "total"}
"""What is ours alone."""
SETTLED = 1000
"""Steps after which averages move as slowly as they ever do."""


@dataclass(frozen=True)
class ImportVAR:
    """Make one weight file of dreamwalk from the published tokenizer of VAR, and a transformer of it."""

    folder: tyro.conf.Positional[Path]
    """Where the downloaded files lie, or the tokenizer."""
    out: Path
    """Weight file to write, a .safetensors file."""
    transformer: Path | None = None
    """Its name there, such as var_d16.pth; without, the tokenizer alone is imported."""
    size: VARSize = 256
    """Side of the pictures, for which VAR has other scales."""
    unsafe_pickle: bool = False
    """Open files that are pickles; take them from nobody but their authors."""


def import_var(order: ImportVAR) -> None:
    """Read the published files and write one of ours; UserError with a sentence for what is wrong."""
    files.check_name(order.out)
    tensors, metadata = var_system(order)
    files.save(order.out, tensors, metadata=metadata)
    print(f"{order.out}: {order.out.stat().st_size / 1e6:.0f} MB; docs/published.md says how to use it")


def var_system(order: ImportVAR) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a weight file of the system `nextscale`, or for the tokenizer alone
    `autoencode`; UserErrors as of `read_tokenizer` and `read_transformer`."""
    trusted, folder = order.unsafe_pickle, order.folder
    path = folder if folder.is_file() else _found(folder / TOKENIZER)
    codec_tensors, codec = read_tokenizer(path, trusted=trusted, size=order.size)
    named = {f"codec.{name}": tensor for name, tensor in codec_tensors.items()}
    notes = {"trained": f"by its authors: {VAR}", "licence": "MIT"}
    if order.transformer is None:
        return named, {"system": "autoencode", "config": to_json(AutoencodeConfig(codec)), "notes": notes}
    path = _found((folder.parent if folder.is_file() else folder) / order.transformer)
    tensors, backbone = read_transformer(path, trusted=trusted, size=order.size)
    named |= {f"backbone.{name}": tensor for name, tensor in tensors.items()}
    config = to_json(NextScaleConfig(codec, backbone))
    return named, {"system": "nextscale", "config": config, "notes": notes | {"data": "ImageNet"}}


def _found(path: Path) -> Path:
    """A file of theirs, or the same as .safetensors; UserError where there is neither."""
    found = safe_or_pickled(path)
    if found is None:
        raise UserError(f"'{path.parent}' lacks {path.name}: download it there from huggingface.co/{VAR}")
    return found


def read_tokenizer(
    path: Path, *, trusted: bool, size: VARSize = 256
) -> tuple[dict[str, Tensor], TokenCodecConfig]:
    """Tensors of a `TokenCodec` in float32, and its config, for square pictures of `size`; widths are those
    of the file.

    UserError with one sentence for a file that is missing or damaged, for a pickle that is not `trusted`, and
    for the first tensor that is missing, too much, or of another shape.
    """
    places, source = dict(places_of(path, trusted=trusted)), f"'{path}'"
    places.pop(HITS, None)
    (width, *_), (codes, channels) = _sizes(shapes_of(places), SIZED, source=source, layout=LAYOUT)
    quantizer = MultiScaleConfig(VQConfig(channels, codes), _scales(size))
    config = TokenCodecConfig(VQGANConfig(channels, width), quantizer)
    outline = files.on_meta(config.build, shapes_of(places), source=source)
    wanted = {name: t for name, t in outline.state_dict().items() if name.rpartition(".")[2] not in MEASURED}
    given = Renamed(wanted, places, var_parts(outline), source=source, layout=LAYOUT)
    tensors = {name: tensor.float() for name, tensor in given.items()}
    return tensors | _settled(tensors["quantizer.codes.0.codebook"], stages=len(VAR_SCALES[size])), config


def var_parts(codec: TokenCodec) -> Parts:
    """Their tensor of one of ours, by its name."""
    inner, layers = codec.inner, dict[str, str]()
    assert isinstance(inner, VQGANCodec)
    for part, run, names in (
        ("encoder", inner.encoder, encoder_names(inner.config)),
        ("decoder", inner.decoder, decoder_names(inner.config)),
    ):
        ours = [f"inner.{part}.{i}." for i, layer in enumerate(run) if any(True for _ in layer.parameters())]
        layers |= {mine: f"{theirs}." for mine, theirs in zip(ours, names, strict=True)}
    return translation(layers | VAR_NAMES)


def _settled(codebook: Tensor, *, stages: int) -> dict[str, Tensor]:
    """What training measures, as if it had measured gains of one and equal use of all codes for long."""
    share, steps = torch.full((len(codebook),), 1 / len(codebook)), torch.tensor(float(SETTLED))
    own = {f"quantizer.{name}": torch.ones(stages) for name in ("power", "overlap", "energy")}
    own |= {"quantizer.codes.0.share": share, "quantizer.codes.0.total": codebook * share[:, None]}
    return own | {"quantizer.steps": steps, "quantizer.codes.0.steps": steps.clone()}


def _sizes(
    shapes: files.Shapes, known: Mapping[str, int], *, source: str, layout: str
) -> list[tuple[int, ...]]:
    """The shapes of tensors with so many axes; UserError where one is missing, empty or of another kind."""
    for name, axes in known.items():
        if len(shape := shapes.get(name, ())) != axes or 0 in shape:
            raise UserError(f"{source} has no '{name}' of {axes} axes: it is not {layout}")
    return [shapes[name] for name in known]


def _scales(size: VARSize) -> tuple[tuple[int, int], ...]:
    return tuple((side, side) for side in VAR_SCALES[size])


def read_transformer(
    path: Path, *, trusted: bool, size: VARSize = 256
) -> tuple[dict[str, Tensor], ScaleFormerConfig]:
    """Tensors of a `ScaleFormer` in float32, and its config, by the shapes of the file; UserErrors as of
    `read_tokenizer`, and for blocks that share their modulation (var_d36)."""
    places, source = dict(places_of(path, trusted=trusted)), f"'{path}'"
    for name in COMPUTED:
        places.pop(name, None)
    if SHARED in places:
        raise UserError(
            f"{source} has blocks that share their modulation, which cannot be read: take var_d30"
        )
    shapes = shapes_of(places)
    embed, labels, head, sharpness = _sizes(shapes, TRANSFORMER_SIZED, source=source, layout=TRANSFORMER)
    depth = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
    sizes = ScaleFormerConfig(_scales(size), embed[0], depth, sharpness[1], embed[1])
    config = replace(sizes, vocabulary=head[0], classes=labels[0] - 1)
    outline = files.on_meta(config.build, shapes, source=source)
    wanted = outline.state_dict()
    given = Renamed(wanted, places, transformer_parts, source=source, layout=TRANSFORMER)
    return {name: tensor.float() for name, tensor in given.items()}, config


def transformer_parts(name: str) -> list[TensorPart]:
    """Their tensors of one of ours: the three biases are each a tensor."""
    block, qkv, _ = name.partition(".attention.qkv.bias")
    if qkv:
        return [TensorPart(f"{block}.attn.{part}") for part in ("q_bias", "zero_k_bias", "v_bias")]
    return [TensorPart(renamed(name, BLOCK_NAMES if name.startswith("blocks.") else ROOT_NAMES))]


def encoder_names(config: VQGANConfig) -> Iterator[str]:
    """Their names of the layers of our encoder that have weights, in its order."""
    deepest = len(config.multiples) - 1
    yield "encoder.conv_in"
    for level in range(deepest + 1):
        for block in range(config.blocks):
            yield f"encoder.down.{level}.block.{block}"
            yield from [f"encoder.down.{level}.attn.{block}"] if level == deepest else []
        yield from [f"encoder.down.{level}.downsample"] if level < deepest else []
    yield from ("encoder.mid.block_1", "encoder.mid.attn_1", "encoder.mid.block_2")
    yield from ("encoder.norm_out", "encoder.conv_out", "quant_conv")


def decoder_names(config: VQGANConfig) -> Iterator[str]:
    """And of our decoder."""
    deepest = len(config.multiples) - 1
    yield from ("post_quant_conv", "decoder.conv_in")
    yield from ("decoder.mid.block_1", "decoder.mid.attn_1", "decoder.mid.block_2")
    for level in range(deepest, -1, -1):
        for block in range(config.blocks + 1):
            yield f"decoder.up.{level}.block.{block}"
            yield from [f"decoder.up.{level}.attn.{block}"] if level == deepest else []
        yield from [f"decoder.up.{level}.upsample.conv"] if level else []
    yield from ("decoder.norm_out", "decoder.conv_out")
