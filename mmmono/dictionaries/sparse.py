"""Sparse codes and the operations on them whose cost grows with the active latents instead of with the dictionary.

With k active of n latents, decoding and all gradients need only b·k·d multiplications each instead of b·n·d; what
remains dense is the encoder's product, without which nobody knows which latents are active. On a CPU:

- the k largest of n are searched in two levels, exactly (`topk`);
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
CANDIDATES = 1.5  # times k: how many latents a bfloat16 product proposes for the float32 product to choose from

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")


class LatentMajor(NamedTuple):
    """The active entries of codes sorted by latent, as bags of sample numbers."""

    order: Int64[Tensor, " active"]
    samples: Int32[Tensor, " active"]
    offsets: Int32[Tensor, " latents"]


@dataclass(frozen=True)
class SparseCodes:
    """The k largest activations of each sample, and which latents they belong to.

    Attributes:
        values: non-negative; fewer than k latents are active where some are 0.
        indices: latents, no two alike in a row, in no particular order.
        num_latents: n, the dictionary's size.
    """

    values: Float[Tensor, "batch k"]
    indices: Int64[Tensor, "batch k"]
    num_latents: int

    def dense(self) -> Float[Tensor, "batch latents"]:
        """The codes with their zeros."""
        zeros = self.values.new_zeros(len(self.values), self.num_latents)
        return zeros.scatter(1, self.indices, self.values)

    @cached_property
    def by_latent(self) -> LatentMajor:
        """Sorted by latent; sorted once, used by the gradients of encoder and decoder."""
        flat = self.indices.flatten()
        order = flat.int().argsort(stable=True)
        counts = torch.bincount(flat, minlength=self.num_latents)
        samples = (order // self.indices.shape[1]).int()
        return LatentMajor(order, samples, (counts.cumsum(0) - counts).int())

    def sample_product(
        self, left: Float[Tensor, "batch dim"], right: Float[Tensor, "latents dim"]
    ) -> Float[Tensor, "batch k"]:
        """The entries of left · rightᵀ at the codes' places, and only those."""
        return sampled_product(left, right, self.indices)


def sampled_product(
    left: Float[Tensor, "batch dim"], right: Float[Tensor, "latents dim"], indices: Int[Tensor, "batch k"]
) -> Float[Tensor, "batch k"]:
    """Entries `indices` of each row of left · rightᵀ."""
    rows, k = indices.shape
    start = torch.arange(0, rows * k + 1, k, device=left.device)
    pattern = torch.sparse_csr_tensor(
        start, indices.flatten(), left.new_zeros(rows * k), (rows, len(right)), check_invariants=False
    )
    return torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0).values().view(rows, k)


def topk(x: Float[Tensor, "batch n"], k: int) -> tuple[Float[Tensor, "batch k"], Int64[Tensor, "batch k"]]:
    """The k largest entries of each row, in no particular order; what `torch.topk` finds, sooner.

    The columns are dealt into n/8 groups. The k largest entries lie in the k groups with the largest maxima, so that
    finding those groups and searching their 8k members is enough.
    """
    columns = x.shape[1]
    groups = columns // GROUP
    if x.device.type != "cpu" or columns % GROUP or groups < 2 * k:
        return x.topk(k, dim=1, sorted=False)
    values, indices = [], []
    for rows in x.split(512):  # rows that stay in cache between the passes
        dealt = rows.view(len(rows), GROUP, groups)
        best = dealt.amax(1).topk(k, dim=1, sorted=False).indices
        members = dealt.gather(2, best.unsqueeze(1).expand(-1, GROUP, -1)).flatten(1)
        value, place = members.topk(k, dim=1, sorted=False)
        values.append(value)
        indices.append(best.gather(1, place % k) + place // k * groups)
    return torch.cat(values), torch.cat(indices)


def encode_topk(
    z: Float[Tensor, "batch dim"],
    shift: Float[Tensor, "groups dim"],
    weight: Float[Tensor, "latents dim"],
    bias: Float[Tensor, " latents"] | None,
    k: int,
) -> SparseCodes:
    """TopK(ReLU(W (z − shift) + bias)) as sparse codes, with gradients that touch only active entries.

    Under autocast a bfloat16 product proposes candidates and float32 products choose among them, so that values are
    exact and only a near-tie can fall the other way.

    Args:
        z: samples; row block g of `groups` equal ones is shifted by row g of `shift`.
        shift: the pre-bias.
        weight: encoder, one row a latent.
        bias: of the latents.
        k: active latents a sample.
    """
    groups = len(shift)
    with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
        centered = (z.view(groups, -1, z.shape[1]) - shift.unsqueeze(1)).flatten(0, 1)
        values, indices = _select(centered, weight, bias, k)
    codes = SparseCodes(values.relu_(), indices, len(weight))
    if torch.is_grad_enabled():
        codes = SparseCodes(_Encode.apply(z, shift, weight, bias, centered, codes), indices, len(weight))
    return codes


def _select(z: Tensor, weight: Tensor, bias: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    proposed = int(CANDIDATES * k)
    if not torch.is_autocast_enabled(z.device.type) or proposed >= len(weight):
        activation = z @ weight.T if bias is None else torch.addmm(bias, z, weight.T)
        return topk(activation, k)
    activation = z.bfloat16() @ weight.bfloat16().T
    if bias is not None:
        activation += bias.bfloat16()
    candidates = topk(activation, proposed)[1]
    exact = sampled_product(z, weight, candidates)
    if bias is not None:
        exact = exact + bias[candidates]
    values, place = exact.topk(k, dim=1, sorted=False)
    return values, candidates.gather(1, place)


def decode_sparse(codes: SparseCodes, weight: Float[Tensor, "latents dim"]) -> Float[Tensor, "batch dim"]:
    """Σ_j codes_j · weight_j, by gathering the active rows."""
    return _Decode.apply(codes.values, weight, codes)


class _Encode(torch.autograd.Function):
    """Hands the selected values through; their gradient is sparse."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, shift: Tensor, weight: Tensor, bias: Tensor | None, centered: Tensor, codes: SparseCodes
    ) -> Tensor:
        ctx.save_for_backward(centered, weight)
        ctx.codes, ctx.groups, ctx.has_bias = codes, len(shift), bias is not None
        return codes.values.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        centered, weight = ctx.saved_tensors
        codes: SparseCodes = ctx.codes
        grad = grad * (codes.values > 0)
        need_z, need_shift, need_weight, need_bias = ctx.needs_input_grad[:4]
        grad_z = F.embedding_bag(codes.indices.int(), weight, per_sample_weights=grad, mode="sum") if need_z else None
        grad_weight = _gather_by_latent(codes, grad, centered) if need_weight else None
        grad_shift = grad_bias = None
        if need_shift or (need_bias and ctx.has_bias):
            groups = ctx.groups
            a_latent = grad.new_zeros(groups, codes.num_latents)
            a_latent.scatter_add_(1, codes.indices.view(groups, -1), grad.view(groups, -1))
            grad_shift = -a_latent @ weight if need_shift else None
            grad_bias = a_latent.sum(0) if need_bias and ctx.has_bias else None
        return grad_z, grad_shift, grad_weight, grad_bias, None, None


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, codes: SparseCodes) -> Tensor:
        ctx.save_for_backward(values, weight)
        ctx.codes = codes
        return F.embedding_bag(codes.indices.int(), weight, per_sample_weights=values, mode="sum")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, weight = ctx.saved_tensors
        codes: SparseCodes = ctx.codes
        grad = grad.contiguous()
        grad_values = codes.sample_product(grad, weight) if ctx.needs_input_grad[0] else None
        grad_weight = _gather_by_latent(codes, values, grad) if ctx.needs_input_grad[1] else None
        return grad_values, grad_weight, None


def _gather_by_latent(codes: SparseCodes, weights: Tensor, rows: Tensor) -> Float[Tensor, "latents dim"]:
    """codesᵀ · rows, with the codes' values replaced by `weights`."""
    pattern = codes.by_latent
    return F.embedding_bag(
        pattern.samples, rows, pattern.offsets, per_sample_weights=weights.flatten()[pattern.order], mode="sum"
    )
