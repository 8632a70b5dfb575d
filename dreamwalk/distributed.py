"""One code path for one process or many: start, shard, and talk.

Under `torchrun` the group comes from its environment; alone, a group of one is made in memory, so that the
same calls work. Sharding is FSDP2 (`fully_shard`) over the blocks, then the root; over one process it is the
identity.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from dreamwalk.errors import UserError


@dataclass(frozen=True)
class Process:
    """This process: its rank among `world_size`, its device, and the mesh over all of them."""

    rank: int
    world_size: int
    device: torch.device
    mesh: DeviceMesh

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes files."""
        return self.rank == 0


def pick_device(name: str | None = None) -> torch.device:
    """`cuda`, `cpu`, or for None the best there is; UserError for a card that is not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("no NVIDIA card is visible to PyTorch: leave out `--device cuda`")
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def start(device: str | None = None) -> Process:
    """Join the process group (torchrun's, or a group of one); device `cuda`, `cpu`, or None for the best."""
    kind = pick_device(device).type
    backend = "nccl" if kind == "cuda" else "gloo"
    if not dist.is_initialized():
        if "RANK" in os.environ:
            dist.init_process_group(backend)
        else:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    local = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if kind == "cuda" else kind)
    if kind == "cuda":
        torch.cuda.set_device(local)
    world = dist.get_world_size()
    return Process(dist.get_rank(), world, local, init_device_mesh(kind, (world,), mesh_dim_names=("shard",)))


def wait_for_all() -> None:
    """Go on when every process has come here: none leaves while another still writes."""
    dist.barrier()


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def shard(root: nn.Module, blocks: Iterable[nn.Module], process: Process) -> None:
    """Shard parameters, gradients and optimizer state over the mesh.

    Build the optimizer afterwards, and enter the root by `root.loss(...)` and blocks by `block(...)`, never
    `.forward`: FSDP2 gathers in hooks on these.
    """
    if process.world_size == 1:
        return
    for block in blocks:
        fully_shard(block, mesh=process.mesh)
    fully_shard(root, mesh=process.mesh)
    register_fsdp_forward_method(root, "loss")


def any_process(flag: bool) -> bool:
    """Whether `flag` holds in any process; all get the same answer."""
    if dist.get_world_size() == 1:
        return flag
    answers: list[bool] = [False] * dist.get_world_size()
    dist.all_gather_object(answers, flag)
    return any(answers)


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a scalar, or of each number of a tensor, over all processes."""
    value = value.detach().clone()
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(value, op=dist.ReduceOp.SUM)
        value /= dist.get_world_size()
    return value


def of_first_process(value: Tensor) -> Tensor:
    """What the first process has, in all processes."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.broadcast(value, 0)
    return value
