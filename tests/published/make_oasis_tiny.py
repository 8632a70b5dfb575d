"""Write `oasis_tiny.safetensors`: what the public code of Oasis computes with tiny random weights.

    python tests/published/make_oasis_tiny.py DIR   # a clone of github.com/etched-ai/open-oasis at f59deef

Their modules are built, saved and sampled by their own script, `generate.py`, on the CPU; only what has to do
with files and packages is replaced. All of it runs in float64, also where they say float32: in single
precision processors differ in the fifth digit. Names in the result: `dit.` and `vae.` are the two public
weight files, `net.` a pass of the network, `codec.` of the codec, `loop.` a whole run of the script. The
metadata hold the names and shapes of the full-size modules.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import safetensors.torch
import torch
from torch import Tensor, nn

DIT = {
    "input_h": 4,
    "input_w": 6,
    "patch_size": 2,
    "in_channels": 4,
    "hidden_size": 16,
    "depth": 2,
    "num_heads": 2,
    "max_frames": 4,
}
VAE = {
    "latent_dim": 4,
    "input_height": 16,
    "input_width": 24,
    "patch_size": 4,
    "enc_dim": 32,
    "enc_depth": 1,
    "enc_heads": 2,
    "dec_dim": 32,
    "dec_depth": 2,
    "dec_heads": 2,
}
STEPS, PROMPT, FRAMES = 4, 2, 7


class Mlp(nn.Module):
    """Two layers under the names of timm, which is then not needed."""

    def __init__(
        self, in_features: int, hidden_features: int, act_layer: Callable[[], nn.Module], drop: float = 0
    ) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(in_features, hidden_features), nn.Linear(hidden_features, in_features)
        self.act = act_layer()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


def public_imports(folder: Path) -> None:
    """Make the clone importable, with stand-ins for the parts of timm and torchvision that it imports."""
    used = {
        "timm.models.vision_transformer": {"Mlp": Mlp},
        "timm.layers.helpers": {"to_2tuple": lambda side: (side, side)},
        "torchvision.io": {"read_image": None, "read_video": None, "write_video": None},
        "torchvision.transforms.functional": {"resize": None},
        "tqdm": {"tqdm": lambda rounds: rounds},
    }
    for name, members in used.items():
        for depth in range(name.count(".") + 1):
            parent = ".".join(name.split(".")[: depth + 1])
            sys.modules.setdefault(parent, types.ModuleType(parent))
        vars(sys.modules[name]).update(members)
    sys.path.insert(0, str(folder))


def randomise(module: nn.Module, std: float) -> nn.Module:
    """Every learned parameter normal; norms around one, so that nothing starts at zero."""
    for name, parameter in module.named_parameters():
        if "rotary" not in name:
            with torch.no_grad():
                parameter.normal_(std=std).add_(1 if "norm" in name and name.endswith("weight") else 0)
    return module.eval()


@contextlib.contextmanager
def in_double() -> Iterator[None]:
    """Float64 is the default, and what is called float32 is float64."""
    torch.set_default_dtype(torch.float64)
    with mock.patch("torch.float32", torch.float64), mock.patch("torch.Tensor.float", Tensor.double):
        yield
    torch.set_default_dtype(torch.float)


def run_script(folder: Path, actions: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
    """Noise `(frames, b, 1, c, h, w)` and latents `(b, t, c, h, w)` of a run of their script on `folder`."""
    from dit import DiT
    from vae import AutoencoderKL

    with mock.patch("torch.cuda.is_available", lambda: True):
        import generate
    noises: list[Tensor] = []
    decoded: list[Tensor] = []
    randn = torch.randn

    def noise(*size: object, device: str) -> Tensor:
        noises.append(randn(*size, generator=torch.Generator().manual_seed(len(noises))))
        return noises[-1]

    class Listening(AutoencoderKL):
        def decode(self, z: Tensor) -> Tensor:
            decoded.append(z.clone())
            return super().decode(z)

    arguments = types.SimpleNamespace(
        oasis_ckpt=str(folder / "dit.safetensors"),
        vae_ckpt=str(folder / "vae.safetensors"),
        n_prompt_frames=PROMPT,
        num_frames=FRAMES,
        ddim_steps=STEPS,
        prompt_path="",
        video_offset=None,
        actions_path="",
        output_path="",
        fps=20,
    )
    stand_ins = {
        "device": "cpu",
        "DiT_models": {"DiT-S/2": partial(DiT, **DIT)},
        "VAE_models": {"vit-l-20-shallow-encoder": partial(Listening, **VAE)},
        "load_prompt": lambda *_, **__: (video + 1) / 2,
        "load_actions": lambda *_, **__: actions,
        "write_video": lambda *_, **__: None,
    }
    with mock.patch.multiple(generate, **stand_ins), mock.patch("torch.randn", noise):
        generate.main(arguments)
    rows, columns = DIT["input_h"], DIT["input_w"]
    latents = decoded[0].reshape(1, FRAMES, rows, columns, -1).permute(0, 1, 4, 2, 3)
    return torch.stack(noises), latents * 0.07843137255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("clone", type=Path)
    public_imports(parser.parse_args().clone)
    from dit import DiT, DiT_models
    from vae import AutoencoderKL, VAE_models

    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    dit, vae = randomise(DiT(**DIT), 0.25), randomise(AutoencoderKL(**VAE), 0.15)
    y, codes = torch.randn(2, 4, 4, 4, 6), torch.randn(1, 3, 4, 4, 6)
    timesteps = torch.tensor([[14, 14, 14, 999], [14, 3, 500, 99]])
    pushed, actions = torch.rand(2, 4, 25) * 2 - 1, torch.rand(1, FRAMES, 25) * 2 - 1
    video = torch.rand(1, PROMPT, 3, 16, 24) * 2 - 1
    y, codes, pushed, actions, video = (given.double() for given in (y, codes, pushed, actions, video))
    with tempfile.TemporaryDirectory() as temporary, torch.no_grad():
        folder = Path(temporary)
        for name, module in (("dit", dit), ("vae", vae)):
            safetensors.torch.save_model(module.double(), str(folder / f"{name}.safetensors"))
        with in_double():
            noise, latents = run_script(folder, actions, video)
        given = {
            f"{name}.{key}": tensor.float()
            for name in ("dit", "vae")
            for key, tensor in safetensors.torch.load_file(folder / f"{name}.safetensors").items()
        }
    with torch.no_grad(), in_double():
        u, means = dit(y, timesteps, pushed), vae.encode(video[0]).mean
        restored = vae.decode(codes[0].flatten(2).mT)
    given |= {"net.y": y, "net.timesteps": timesteps, "net.actions": pushed, "net.u": u}
    given |= {"codec.video": video, "codec.means": means, "codec.codes": codes, "codec.restored": restored}
    given |= {"loop.actions": actions, "loop.noise": noise, "loop.latents": latents}
    with torch.device("meta"):
        full = [
            make().state_dict() for make in (DiT_models["DiT-S/2"], VAE_models["vit-l-20-shallow-encoder"])
        ]
    shapes = [{name: list(tensor.shape) for name, tensor in state.items()} for state in full]
    out = Path(__file__).with_name("oasis_tiny.safetensors")
    contiguous = {name: tensor.contiguous() for name, tensor in given.items()}
    safetensors.torch.save_file(contiguous, out, metadata={"full": json.dumps(shapes)})
    print(f"{out}: {out.stat().st_size / 1e3:.0f} kB; u std {u.std():.3g}, latents std {latents.std():.3g}")


if __name__ == "__main__":
    main()
