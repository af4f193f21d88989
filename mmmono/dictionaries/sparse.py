"""Sparse codes, and operations on them whose cost grows with the number of active latents, not of all latents.

With k of n latents active, batch size b and width d, decoding and each gradient take b·k·d multiplications instead of
b·n·d. Only the encoder's product stays dense, because it determines which latents are active. On a CPU:

- encoding works on chunks of rows that fit into the cache, with an exact top-k search (`topk`), which is compiled where no
  gradient is needed;
- decoding gathers rows of the decoder (`embedding_bag`);
- the gradient of the codes computes b·k entries of a matrix product (`sampled_addmm`);
- the gradients of both weight matrices gather samples by latent (`embedding_bag`), after one shared sort of the b·k
  active entries.

On a GPU dense products are faster: `TopKSAE` scatters the codes into a dense matrix and uses autograd.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Int32, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mmmono.core.extras import is_installed
from mmmono.core.parts import in_parts, num_parts

GROUP = 8  # columns per group of the two-level search; 8 was fastest for 1,024 and for 8,192 latents
CHUNK_ELEMENTS = 1 << 22  # activations computed and searched at a time: 16 MiB of float32
WORTH_COMPILING = 1 << 27  # entries searched without gradients, a second's work, after which numba is worth loading
CANDIDATES = 1.5  # latents preselected by a bfloat16 product before the exact float32 choice, as a multiple of k

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")


class LatentMajor(NamedTuple):
    """Active entries of the codes sorted by latent, as input of `embedding_bag`.

    Attributes:
        order: index of each entry in the flattened `[batch, k]` codes.
        samples: row (sample) of each entry.
        offsets: position of each latent's first entry.
    """

    order: Int64[Tensor, " active"]
    samples: Int32[Tensor, " active"]
    offsets: Int32[Tensor, " latents"]


@dataclass(frozen=True)
class Pattern:
    """Indices of the active latents of each sample.

    Attributes:
        indices: distinct latents of each sample, unsorted: `[samples, k]` if all have k of them, else `[active]`, all
            those of the first sample before those of the second.
        num_latents: number of latents of the dictionary, n.
        starts: where each sample's entries start in the flattened indices, and last where they end; None if all samples
            have k of them.
    """

    indices: Int64[Tensor, "samples k"] | Int64[Tensor, " active"]
    num_latents: int
    starts: Int64[Tensor, " samples+1"] | None = None

    @cached_property
    def row_starts(self) -> Int64[Tensor, " samples+1"]:
        """Where each sample's entries start in the flattened indices, and last where they end."""
        if self.starts is not None:
            return self.starts
        return torch.arange(0, self.indices.numel() + 1, self.indices.shape[1], device=self.indices.device)

    @property
    def num_samples(self) -> int:
        """Number of samples."""
        return len(self.indices) if self.starts is None else len(self.starts) - 1

    @cached_property
    def rows(self) -> Int32[Tensor, " active"]:
        """Sample of each entry of the flattened indices."""
        samples = torch.arange(self.num_samples, dtype=torch.int32, device=self.indices.device)
        return samples.repeat_interleave(self.row_starts.diff(), output_size=self.indices.numel())

    @cached_property
    def by_latent(self) -> LatentMajor:
        """The pattern sorted by latent; cached, because the gradients of encoder and decoder both need it."""
        flat = self.indices.flatten()
        # The radix sort's time grows with the width of its keys, so use narrow integers.
        order = flat.to(torch.int16 if self.num_latents <= 1 << 15 else torch.int32).argsort(stable=True)
        counts = torch.bincount(flat, minlength=self.num_latents)
        if self.starts is None:
            samples = order.int().div_(self.indices.shape[1], rounding_mode="floor")
        else:
            samples = self.rows[order]
        return LatentMajor(order, samples, (counts.cumsum(0) - counts).int())


@dataclass(frozen=True)
class SparseCodes:
    """The largest activations, k of each sample or a varying number; values of 0 are inactive.

    Attributes:
        values: activations, in the shape of the pattern's indices.
        pattern: the latents that they belong to.
    """

    values: Float[Tensor, "samples k"] | Float[Tensor, " active"]
    pattern: Pattern

    def dense(self) -> Float[Tensor, "samples latents"]:
        """Return the codes as a dense tensor."""
        pattern = self.pattern
        zeros = self.values.new_zeros(pattern.num_samples, pattern.num_latents)
        if pattern.starts is None:
            return zeros.scatter_(1, pattern.indices, self.values)
        places = pattern.rows.long() * pattern.num_latents + pattern.indices
        return zeros.view(-1).scatter_(0, places, self.values).view_as(zeros)

    def l0(self) -> Float[Tensor, ""]:
        """Mean number of active latents per sample."""
        return (self.values > 0).sum().float() / self.pattern.num_samples

    def fired(self, groups: int) -> Bool[Tensor, "groups latents"]:
        """Mask of the latents that fired in each of `groups` equal blocks of samples."""
        return sum_by_latent(self.values, self.pattern, groups) > 0


def topk(x: Float[Tensor, "batch n"], k: int) -> tuple[Float[Tensor, "batch k"], Int64[Tensor, "batch k"]]:
    """Values and indices of the k largest entries of each row, unsorted; a faster `torch.topk` on a CPU.

    Splits the columns into n/8 groups of 8. The k largest entries lie in the k groups with the largest maxima, so it
    suffices to find those groups and search their 8k entries. In inference mode a numba kernel searches, once a process
    has searched much. Of equal entries either may be taken.
    """
    columns = x.shape[1]
    groups = columns // GROUP
    if k <= columns and _searches.worth_compiling(x):
        return _compiled_topk(x.contiguous(), k)
    if x.device.type != "cpu" or columns % GROUP or groups < 2 * k:
        return x.topk(k, dim=1, sorted=False)
    dealt = x.view(len(x), GROUP, groups)
    best = dealt.amax(1).topk(k, dim=1, sorted=False).indices
    members = dealt.gather(2, best.unsqueeze(1).expand(-1, GROUP, -1)).flatten(1)
    values, place = members.topk(k, dim=1, sorted=False)
    return values, best.gather(1, place % k) + place // k * groups


class _Searches:
    """Counts the entries that this process has searched without gradients.

    A training keeps PyTorch's search: codes in another order change the last bits of its sums.
    """

    def __init__(self) -> None:
        self.entries = 0

    def worth_compiling(self, x: Tensor) -> bool:
        """Whether to search x with the numba kernel; counts its entries."""
        if not torch.is_inference_mode_enabled() or x.device.type != "cpu" or x.dtype != torch.float32:
            return False
        self.entries += x.numel()
        return self.entries >= WORTH_COMPILING and is_installed("numba", "llvmlite")


_searches = _Searches()


def _compiled_topk(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    from mmmono.core.largest import largest

    values, indices = x.new_empty(len(x), k), torch.empty(len(x), k, dtype=torch.int64)
    rows, found = x.detach().numpy(), (values.numpy(), indices.numpy())
    in_parts(
        lambda _, first, end: largest(rows[first:end], k, found[0][first:end], found[1][first:end]), len(x), num_parts()
    )
    return values, indices


@torch.no_grad()
def select_latents(
    z: Float[Tensor, "batch dim"], weight: Float[Tensor, "latents dim"], bias: Float[Tensor, " latents"] | None, k: int
) -> tuple[Float[Tensor, "batch k"], Int64[Tensor, "batch k"]]:
    """Values and indices of the k largest entries of W z + bias per sample, without gradients.

    Under autocast, a bfloat16 product preselects candidates and float32 products choose among them: the values are
    exact, and only near-ties may be decided differently.
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
    left: Float[Tensor, "samples dim"],
    right: Float[Tensor, "latents dim"],
    indices: Int[Tensor, "samples k"] | Int[Tensor, " active"],
    starts: Int[Tensor, " samples+1"] | None = None,
) -> Float[Tensor, "samples k"] | Float[Tensor, " active"]:
    """Compute only some entries of each row of left · rightᵀ.

    Args:
        left, right: factors.
        indices: entries to compute, in either form of `Pattern.indices`.
        starts: where each row's entries start, see `Pattern.starts`; None if all rows have equally many.
    """
    if left.dtype in (torch.float16, torch.bfloat16):  # sampled_addmm does not support these
        return sampled_product(left.float(), right.float(), indices, starts).to(left.dtype)
    if starts is None:
        starts = torch.arange(0, indices.numel() + 1, indices.shape[1], device=left.device)
    pattern = torch.sparse_csr_tensor(
        starts, indices.flatten(), left.new_zeros(indices.numel()), (len(left), len(right)), check_invariants=False
    )
    return torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0).values().view(indices.shape)


def gather_by_sample(
    values: Float[Tensor, ...], pattern: Pattern, weight: Float[Tensor, "latents dim"]
) -> Float[Tensor, "samples dim"]:
    """Product codes · weight, computed as the weighted sum of each sample's active rows of `weight`."""
    if pattern.starts is None:
        return F.embedding_bag(pattern.indices.int(), weight, per_sample_weights=values, mode="sum")
    offsets = pattern.starts[:-1].int()
    return F.embedding_bag(pattern.indices.int(), weight, offsets, per_sample_weights=values, mode="sum")


def gather_by_latent(
    values: Float[Tensor, ...], pattern: Pattern, rows: Float[Tensor, "rows dim"], repeats: int = 1
) -> Float[Tensor, "latents dim"]:
    """Product codesᵀ · rows, computed as the weighted sum of the rows on which each latent is active.

    Args:
        values, pattern: the codes.
        rows: a row for each `repeats` consecutive samples of the codes.
        repeats: number of samples that share a row.
    """
    order, samples, offsets = pattern.by_latent
    if repeats > 1:
        samples = samples.div(repeats, rounding_mode="floor")
    return F.embedding_bag(samples, rows, offsets, per_sample_weights=values.flatten()[order], mode="sum")


def sum_by_latent(values: Float[Tensor, ...], pattern: Pattern, groups: int) -> Float[Tensor, "groups latents"]:
    """Sum of each latent's codes over each of `groups` equal blocks of samples."""
    sums = values.new_zeros(groups, pattern.num_latents)
    if pattern.starts is None:
        return sums.scatter_add_(1, pattern.indices.view(groups, -1), values.view(groups, -1))
    blocks = pattern.rows.long().div_(pattern.num_samples // groups, rounding_mode="floor")
    return sums.flatten().scatter_add_(0, blocks.mul_(pattern.num_latents).add_(pattern.indices), values).view_as(sums)


def encode_topk(
    z: Float[Tensor, "batch dim"], weight: Float[Tensor, "latents dim"], bias: Float[Tensor, " latents"] | None, k: int
) -> SparseCodes:
    """Sparse codes TopK(ReLU(W z + bias)); gradients flow to z, weight and bias through active entries only."""
    values, indices = select_latents(z, weight, bias, k)
    pattern = Pattern(indices, len(weight))
    return SparseCodes(_Encode.apply(z, weight, bias, values.relu_(), pattern), pattern)


def encode_at(
    z: Float[Tensor, "batch dim"],
    weight: Float[Tensor, "latents dim"],
    bias: Float[Tensor, " latents"] | None,
    indices: Int64[Tensor, "batch k"],
) -> SparseCodes:
    """Sparse codes ReLU(W z + bias) of given latents of each sample; gradients as those of `encode_topk`."""
    with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
        values = sampled_product(z, weight, indices)
        values = (values if bias is None else values + bias[indices]).relu_()
    pattern = Pattern(indices, len(weight))
    return SparseCodes(_Encode.apply(z, weight, bias, values, pattern), pattern)


def decode_sparse(codes: SparseCodes, weight: Float[Tensor, "latents dim"]) -> Float[Tensor, "batch dim"]:
    """Product codes · weight with gradients, computed by gathering the active rows of `weight`."""
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
            sampled_product(grad, weight, ctx.pattern.indices, ctx.pattern.starts) if ctx.needs_input_grad[0] else None,
            gather_by_latent(values, ctx.pattern, grad) if ctx.needs_input_grad[1] else None,
            None,
        )
