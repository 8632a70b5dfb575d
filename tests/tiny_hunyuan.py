"""The transformer of HunyuanVideo at a tiny size, as diffusers has it, and under the names of its authors."""

import warnings
from typing import Any

import torch
from torch import Tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", FutureWarning)
    from diffusers import HunyuanVideoTransformer3DModel

SIZES: dict[str, Any] = {
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "num_refiner_layers": 2,
    "mlp_ratio": 4.0,
    "patch_size": 2,
    "patch_size_t": 1,
    "text_embed_dim": 12,
    "pooled_projection_dim": 8,
    "rope_axes_dim": (4, 6, 6),
}
KINDS: dict[str | None, dict[str, Any]] = {
    None: {"in_channels": 4, "guidance_embeds": True},
    "latent_concat": {"in_channels": 9, "guidance_embeds": False, "image_condition_type": "latent_concat"},
    "token_replace": {"in_channels": 4, "guidance_embeds": True, "image_condition_type": "token_replace"},
}


def published(kind: str | None) -> HunyuanVideoTransformer3DModel:
    torch.manual_seed(0)
    model = HunyuanVideoTransformer3DModel(**SIZES, **KINDS[kind]).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


REFINED = {"norm1": "norm1", "norm2": "norm2", "attn.to_out.0": "self_attn_proj", "ff.net.2": "mlp.fc2"}
REFINED |= {"ff.net.0.proj": "mlp.fc1", "norm_out.linear": "adaLN_modulation.1"}
VIDEO = ("to_q", "to_k", "to_v", "to_out.0", "norm_q", "norm_k")
TEXT = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "norm_added_q", "norm_added_k")


def as_tencent(model: HunyuanVideoTransformer3DModel) -> dict[str, Tensor]:
    """The same weights under their authors' names: a table of its own, from theirs to diffusers'."""
    given, made = model.state_dict(), {}

    def put(name: str, *sources: str) -> None:
        for kind in ("weight", "bias"):
            if f"{sources[0]}.{kind}" in given:
                made[f"{name}.{kind}"] = torch.cat([given[f"{source}.{kind}"] for source in sources])

    def stream(block: str, source: str, *, of: str, attention: tuple[str, ...]) -> None:
        q, k, v, out, norm_q, norm_k = (f"{source}.attn.{part}" for part in attention)
        put(f"{block}.{of}_attn_qkv", q, k, v)
        put(f"{block}.{of}_attn_proj", out)
        put(f"{block}.{of}_attn_q_norm", norm_q)
        put(f"{block}.{of}_attn_k_norm", norm_k)

    put("img_in.proj", "x_embedder.proj")
    put("vector_in.in_layer", "time_text_embed.text_embedder.linear_1")
    put("vector_in.out_layer", "time_text_embed.text_embedder.linear_2")
    put("txt_in.input_embedder", "context_embedder.proj_in")
    for layer, index in (("linear_1", 0), ("linear_2", 2)):
        put(f"time_in.mlp.{index}", f"time_text_embed.timestep_embedder.{layer}")
        if model.config.guidance_embeds:
            put(f"guidance_in.mlp.{index}", f"time_text_embed.guidance_embedder.{layer}")
        put(f"txt_in.t_embedder.mlp.{index}", f"context_embedder.time_text_embed.timestep_embedder.{layer}")
        put(f"txt_in.c_embedder.{layer}", f"context_embedder.time_text_embed.text_embedder.{layer}")
    for i in range(model.config.num_refiner_layers):
        source = f"context_embedder.token_refiner.refiner_blocks.{i}"
        block = f"txt_in.individual_token_refiner.blocks.{i}"
        put(f"{block}.self_attn_qkv", *(f"{source}.attn.to_{x}" for x in "qkv"))
        for name, theirs in REFINED.items():
            put(f"{block}.{theirs}", f"{source}.{name}")
    for i in range(model.config.num_layers):
        block, source = f"double_blocks.{i}", f"transformer_blocks.{i}"
        stream(block, source, of="img", attention=VIDEO)
        stream(block, source, of="txt", attention=TEXT)
        for of, suffix in (("img", ""), ("txt", "_context")):
            put(f"{block}.{of}_mod.linear", f"{source}.norm1{suffix}.linear")
            put(f"{block}.{of}_mlp.fc1", f"{source}.ff{suffix}.net.0.proj")
            put(f"{block}.{of}_mlp.fc2", f"{source}.ff{suffix}.net.2")
    for i in range(model.config.num_single_layers):
        block, source = f"single_blocks.{i}", f"single_transformer_blocks.{i}"
        put(f"{block}.linear1", *(f"{source}.attn.to_{x}" for x in "qkv"), f"{source}.proj_mlp")
        put(f"{block}.linear2", f"{source}.proj_out")
        put(f"{block}.q_norm", f"{source}.attn.norm_q")
        put(f"{block}.k_norm", f"{source}.attn.norm_k")
        put(f"{block}.modulation.linear", f"{source}.norm.linear")
    put("final_layer.linear", "proj_out")
    for kind in ("weight", "bias"):
        scale, shift = given[f"norm_out.linear.{kind}"].chunk(2)
        made[f"final_layer.adaLN_modulation.1.{kind}"] = torch.cat([shift, scale])
    return made
