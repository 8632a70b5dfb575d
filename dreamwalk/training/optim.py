"""Optimizers, the learning rate as a function of the step, and averaged weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dreamwalk.errors import UserError
from dreamwalk.layers.modulation import Modulation
from dreamwalk.training.run import OptimConfig


def build_optimizers(
    system: nn.Module, blocks: Iterable[nn.Module], config: OptimConfig
) -> list[torch.optim.Optimizer]:
    """One AdamW, or Muon for the blocks' matrices and AdamW for everything else. Call after sharding."""
    trained = [p for p in system.parameters() if p.requires_grad]
    matrices: set[Tensor] = set()
    if config.method == "muon":
        if any(type(p).__name__ == "DTensor" for p in trained):
            raise UserError(
                "muon needs whole matrices and runs on one process: use `--optim.method adamw` with several"
            )
        matrices = {p for block in blocks for p in _matrices(block)}
    rest = [p for p in trained if p not in matrices]
    fused = rest[0].device.type == "cuda"
    adamw = torch.optim.AdamW(
        _param_groups(system, rest),
        lr=config.lr,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=fused,
    )
    if not matrices:
        return [adamw]
    ordered = [p for p in trained if p in matrices]
    muon = torch.optim.Muon(
        ordered, lr=config.lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return [adamw, muon]


def _param_groups(system: nn.Module, parameters: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Parameter groups: those of modules with a `lr_factor` learn at that share of the learning rate."""
    factors: dict[Any, float] = {}
    for module in system.modules():
        if isinstance(lr_factor := getattr(module, "lr_factor", None), float):
            factors |= dict.fromkeys(module.parameters(), lr_factor)
    groups: dict[float, list[Tensor]] = {1.0: []}
    for p in parameters:
        groups.setdefault(factors.get(p, 1.0), []).append(p)
    return [{"params": group, "lr_factor": lr_factor} for lr_factor, group in groups.items() if group]


def _matrices(block: nn.Module) -> list[Tensor]:
    """Weights of a block's linear layers, but not of its modulation, which starts at zero."""
    inner = [module for module in block.modules() if not isinstance(module, Modulation)]
    linear = [module.weight for module in inner if isinstance(module, nn.Linear)]
    modulation = {
        p for module in block.modules() if isinstance(module, Modulation) for p in module.parameters()
    }
    return [weight for weight in linear if weight not in modulation]


def lr_scale(step: int, *, steps: int, config: OptimConfig) -> float:
    """Share of the learning rate at a step: a linear rise, a plateau, a linear fall to zero."""
    rise = min(1.0, (step + 1) / max(1, config.warmup))
    fall = (steps - step) / max(1.0, config.decay * steps)
    return min(rise, fall, 1.0)


def set_lr(optimizers: Sequence[torch.optim.Optimizer], lr: float) -> None:
    """Give every parameter group the learning rate `lr`, or its share of it."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_factor", 1.0)


class EMA:
    """Exponential moving average of the trained parameters; lives on shards as they do."""

    def __init__(self, parameters: Mapping[str, Tensor], *, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, Tensor], *, step: int) -> None:
        """Young averages forget faster, so that the random start does not linger."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, values = list(self.values.values()), [parameters[name].detach() for name in self.values]
        torch._foreach_mul_(averages, decay)
        torch._foreach_add_(averages, values, alpha=1 - decay)
