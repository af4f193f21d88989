"""Communication between the processes of a distributed training; a single process gets its own tensors back."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor


def place() -> tuple[int, int]:
    """Return this process's rank and the number of processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


@torch.no_grad()
def sum_over_processes(x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Sum a tensor over all processes, without gradient."""
    return _reduced(x, dist.ReduceOp.SUM)


@torch.no_grad()
def any_over_processes(x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Element-wise logical OR of a boolean tensor over all processes."""
    return _reduced(x.to(torch.uint8), dist.ReduceOp.MAX).bool() if place()[1] > 1 else x


def gather_batch(x: Float[Tensor, "rows features"]) -> Float[Tensor, "all_rows features"]:
    """Concatenate the rows of all processes (equally many of each); gradients flow back to each row's process."""
    return _GatherBatch.apply(x) if place()[1] > 1 else x


class _GatherBatch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rows = [torch.empty_like(x) for _ in range(place()[1])]
        dist.all_gather(rows, x.contiguous())
        return torch.cat(rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        rank, processes = place()
        return sum_over_processes(grad.contiguous()).chunk(processes)[rank]


@torch.no_grad()
def rows_of_all_processes(x: Shaped[Tensor, "rows ..."]) -> Shaped[Tensor, "all_rows ..."]:
    """Concatenate the rows of all processes in rank order, without gradient; their numbers may differ."""
    if place()[1] == 1:
        return x
    from torchmetrics.utilities.distributed import gather_all_tensors

    return torch.cat(gather_all_tensors(x.contiguous()))


def _reduced(x: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
    if place()[1] == 1:
        return x
    x = x.clone()
    dist.all_reduce(x, operation)
    return x
