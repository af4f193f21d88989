"""What the processes that train one dictionary tell each other; each function is the identity where there is but one."""

from __future__ import annotations

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors


def place() -> tuple[int, int]:
    """This process's rank, and how many processes there are."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


@torch.no_grad()
def sum_over_processes(x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Sum of all processes' tensors, without gradient."""
    return _reduced(x, dist.ReduceOp.SUM)


@torch.no_grad()
def any_over_processes(x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Where some process's boolean tensor is true."""
    return _reduced(x.to(torch.uint8), dist.ReduceOp.MAX).bool() if place()[1] > 1 else x


@torch.no_grad()
def rows_of_all_processes(x: Shaped[Tensor, "rows ..."]) -> Shaped[Tensor, "all_rows ..."]:
    """All processes' rows, those of rank 0 first; processes may have different numbers of them."""
    return torch.cat(gather_all_tensors(x.contiguous())) if place()[1] > 1 else x


def _reduced(x: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
    if place()[1] == 1:
        return x
    x = x.clone()
    dist.all_reduce(x, operation)
    return x
