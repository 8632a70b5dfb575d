"""HunyuanVideo-1.5 at a tiny size, as diffusers has it."""

import warnings
from typing import Any

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", FutureWarning)
    from diffusers import AutoencoderKLHunyuanVideo15, HunyuanVideo15Transformer3DModel

SIZES: dict[str, Any] = {
    "in_channels": 9,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "num_refiner_layers": 1,
    "text_embed_dim": 12,
    "text_embed_2_dim": 10,
    "image_embed_dim": 6,
    "rope_axes_dim": (4, 6, 6),
}


def published(task: str) -> HunyuanVideo15Transformer3DModel:
    """For words (`t2v`) or for pictures (`i2v`)."""
    torch.manual_seed(0)
    model = HunyuanVideo15Transformer3DModel(**SIZES, task_type=task).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def autoencoder(widths: tuple[int, ...] | None) -> AutoencoderKLHunyuanVideo15:
    """Of 4 latent channels and so many at each level; None for the published sizes."""
    if widths is None:
        return AutoencoderKLHunyuanVideo15()
    torch.manual_seed(0)
    vae = AutoencoderKLHunyuanVideo15(latent_channels=4, block_out_channels=widths, layers_per_block=1)
    for name, parameter in vae.named_parameters():
        mean = 1.0 if "norm" in name else 0.0
        std = parameter[0].numel() ** -0.5 if parameter.ndim == 5 else 0.3
        torch.nn.init.normal_(parameter, mean, std)
    return vae.eval()
