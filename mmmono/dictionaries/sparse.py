"""Sparse codes and the operations on them whose cost grows with the active latents instead of with the dictionary.

With k active of n latents, decoding and all gradients need only b·k·d multiplications each instead of b·n·d; what
remains dense is the encoder's product, without which nobody knows which latents are active. On a CPU:

- rows are encoded in chunks that stay in cache, and the k largest of n are searched in two levels, exactly (`topk`);
- decoding gathers rows (`embedding_bag`), its transpose, the gradient of the codes, samples b·k entries of a product
  (`sampled_addmm`), and the gradients of both weight matrices gather samples by latent (`embedding_bag` again, after
  one sort of the b·k active entries that both share).

On a GPU the dense products are the fast ones, so codes are scattered and autograd does the rest.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Int32, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

GROUP = 8  # columns a group of the two-level search; 8 was fastest for 1,024 as well as for 8,192 latents
CHUNK_ELEMENTS = 1 << 22  # activations computed and searched at a time: 16 MB of float32
CANDIDATES = 1.5  # times k: how many latents a bfloat16 product proposes for the float32 product to choose from

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")


class LatentMajor(NamedTuple):
    """The active entries of codes sorted by latent, as bags of sample numbers."""

    order: Int64[Tensor, " active"]
    samples: Int32[Tensor, " active"]
    offsets: Int32[Tensor, " latents"]


@dataclass(frozen=True)
class Pattern:
    """Which latents are active on which samples.

    Attributes:
        indices: k latents a row, no two alike, in no particular order.
        num_latents: n, the dictionary's size.
    """

    indices: Int64[Tensor, "batch k"]
    num_latents: int

    @cached_property
    def by_latent(self) -> LatentMajor:
        """Sorted by latent; sorted once, used by the gradients of encoder and decoder."""
        flat = self.indices.flatten()
        # The sort is by digits, and keys half as wide have half as many.
        order = flat.to(torch.int16 if self.num_latents <= 1 << 15 else torch.int32).argsort(stable=True)
        counts = torch.bincount(flat, minlength=self.num_latents)
        samples = order.int().div_(self.indices.shape[1], rounding_mode="floor")
        return LatentMajor(order, samples, (counts.cumsum(0) - counts).int())


@dataclass(frozen=True)
class SparseCodes:
    """The k largest activations of each sample; fewer are active where some values are 0."""

    values: Float[Tensor, "batch k"]
    pattern: Pattern

    def dense(self) -> Float[Tensor, "batch latents"]:
        """The codes with their zeros."""
        zeros = self.values.new_zeros(len(self.values), self.pattern.num_latents)
        return zeros.scatter(1, self.pattern.indices, self.values)


def topk(x: Float[Tensor, "batch n"], k: int) -> tuple[Float[Tensor, "batch k"], Int64[Tensor, "batch k"]]:
    """The k largest entries of each row, in no particular order; what `torch.topk` finds, sooner.

    The columns are dealt into n/8 groups. The k largest entries lie in the k groups with the largest maxima, so that
    finding those groups and searching their 8k members is enough.
    """
    columns = x.shape[1]
    groups = columns // GROUP
    if x.device.type != "cpu" or columns % GROUP or groups < 2 * k:
        return x.topk(k, dim=1, sorted=False)
    dealt = x.view(len(x), GROUP, groups)
    best = dealt.amax(1).topk(k, dim=1, sorted=False).indices
    members = dealt.gather(2, best.unsqueeze(1).expand(-1, GROUP, -1)).flatten(1)
    values, place = members.topk(k, dim=1, sorted=False)
    return values, best.gather(1, place % k) + place // k * groups


@torch.no_grad()
def select_latents(
    z: Float[Tensor, "batch dim"], weight: Float[Tensor, "latents dim"], bias: Float[Tensor, " latents"] | None, k: int
) -> tuple[Float[Tensor, "batch k"], Int64[Tensor, "batch k"]]:
    """Values and indices of the k largest of W z + bias, without gradients.

    Under autocast a bfloat16 product proposes candidates and float32 products choose among them, so that values are
    exact and only a near-tie can fall the other way.
    """
    proposed = int(CANDIDATES * k)
    if torch.is_autocast_enabled(z.device.type) and proposed < len(weight):
        with torch.autocast(z.device.type, enabled=False):
            half = None if bias is None else bias.bfloat16()
            candidates = _largest(z.bfloat16(), weight.bfloat16(), half, proposed)[1]
            exact = sampled_product(z, weight, candidates)
            values, place = (exact if bias is None else exact + bias[candidates]).topk(k, dim=1, sorted=False)
            return values, candidates.gather(1, place)
    with torch.autocast(z.device.type, enabled=False):
        return _largest(z, weight, bias, k)


def _largest(z: Tensor, weight: Tensor, bias: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    rows = max(1, CHUNK_ELEMENTS // len(weight))
    buffer = z.new_empty(min(rows, len(z)), len(weight))
    values = z.new_empty(len(z), k)
    indices = torch.empty(len(z), k, dtype=torch.int64, device=z.device)
    for start in range(0, len(z), rows):
        chunk = z[start : start + rows]
        activation = torch.mm(chunk, weight.T, out=buffer[: len(chunk)])
        if bias is not None:
            activation += bias
        values[start : start + rows], indices[start : start + rows] = topk(activation, k)
    return values, indices


def sampled_product(
    left: Float[Tensor, "batch dim"], right: Float[Tensor, "latents dim"], indices: Int[Tensor, "batch k"]
) -> Float[Tensor, "batch k"]:
    """Entries `indices` of each row of left · rightᵀ, and only those."""
    if left.dtype in (torch.float16, torch.bfloat16):  # no kernel takes these
        return sampled_product(left.float(), right.float(), indices).to(left.dtype)
    rows, k = indices.shape
    start = torch.arange(0, rows * k + 1, k, device=left.device)
    pattern = torch.sparse_csr_tensor(
        start, indices.flatten(), left.new_zeros(rows * k), (rows, len(right)), check_invariants=False
    )
    return torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0).values().view(rows, k)


def gather_by_sample(
    values: Float[Tensor, "batch k"], pattern: Pattern, weight: Float[Tensor, "latents dim"]
) -> Float[Tensor, "batch dim"]:
    """codes · weight: each sample's active rows of `weight`, weighted and summed."""
    return F.embedding_bag(pattern.indices.int(), weight, per_sample_weights=values, mode="sum")


def gather_by_latent(
    values: Float[Tensor, "batch k"], pattern: Pattern, rows: Float[Tensor, "batch dim"]
) -> Float[Tensor, "latents dim"]:
    """codesᵀ · rows: for each latent the rows of the samples it is active on, weighted and summed."""
    order, samples, offsets = pattern.by_latent
    return F.embedding_bag(samples, rows, offsets, per_sample_weights=values.flatten()[order], mode="sum")


def sum_by_latent(values: Float[Tensor, "batch k"], pattern: Pattern, groups: int) -> Float[Tensor, "groups latents"]:
    """Column sums of codes, separately for `groups` equal blocks of samples."""
    sums = values.new_zeros(groups, pattern.num_latents)
    return sums.scatter_add_(1, pattern.indices.view(groups, -1), values.view(groups, -1))


def encode_topk(
    z: Float[Tensor, "batch dim"], weight: Float[Tensor, "latents dim"], bias: Float[Tensor, " latents"] | None, k: int
) -> SparseCodes:
    """TopK(ReLU(W z + bias)) as sparse codes; gradients reach z, weight and bias through active entries alone."""
    values, indices = select_latents(z, weight, bias, k)
    pattern = Pattern(indices, len(weight))
    return SparseCodes(_Encode.apply(z, weight, bias, values.relu_(), pattern), pattern)


def decode_sparse(codes: SparseCodes, weight: Float[Tensor, "latents dim"]) -> Float[Tensor, "batch dim"]:
    """Σ_j codes_j · weight_j, by gathering the active rows."""
    return _Decode.apply(codes.values, weight, codes.pattern)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, weight: Tensor, bias: Tensor | None, values: Tensor, pattern: Pattern) -> Tensor:
        ctx.save_for_backward(z, weight, values)
        ctx.pattern = pattern
        return values.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, weight, values = ctx.saved_tensors
        grad = grad * (values > 0)
        need_z, need_weight, need_bias = ctx.needs_input_grad[:3]
        return (
            gather_by_sample(grad, ctx.pattern, weight) if need_z else None,
            gather_by_latent(grad, ctx.pattern, z) if need_weight else None,
            sum_by_latent(grad, ctx.pattern, 1)[0] if need_bias else None,
            None,
            None,
        )


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, pattern: Pattern) -> Tensor:
        ctx.save_for_backward(values, weight)
        ctx.pattern = pattern
        return gather_by_sample(values, pattern, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, weight = ctx.saved_tensors
        grad = grad.contiguous()
        return (
            sampled_product(grad, weight, ctx.pattern.indices) if ctx.needs_input_grad[0] else None,
            gather_by_latent(values, ctx.pattern, grad) if ctx.needs_input_grad[1] else None,
            None,
        )
