"""SAE loss with hand-written gradients; its only `[samples, dim]` tensors are the input and the residuals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmmono.dictionaries.sparse import (
    Pattern,
    SparseCodes,
    gather_by_latent,
    gather_by_sample,
    sampled_product,
    sum_by_latent,
)

WHOLE = ((None, 1.0),)  # one level: all latents, with weight 1


def reconstruction_loss(
    centered: Float[Tensor, "samples dim"],
    shift: Float[Tensor, "groups dim"],
    encoder: Float[Tensor, "latents dim"],
    bias: Float[Tensor, " latents"] | None,
    decoder: Float[Tensor, "latents dim"],
    codes: SparseCodes,
    levels: Sequence[tuple[int | None, float]] = WHOLE,
) -> tuple[Float[Tensor, ""], Float[Tensor, "samples dim"]]:
    """Weighted sum over levels of ‖c − Σ_{j < m} code_j · atom_j‖² over centered samples c = z − shift.

    A level reconstructs from the first m latents alone. Each latent's contribution is computed once: the residual of a
    level is that of the level before it minus the contribution of the latents that it adds.

    Args:
        centered: samples minus the pre-bias of their group, without gradient. Groups are equal blocks of rows.
        shift: pre-bias of each group; used only to receive its gradient.
        encoder, bias, decoder: weights of the dictionary, one row per latent.
        codes: the active latents' ReLU(W_enc c + bias), without gradient.
        levels: number of latents m and weight of each level, in increasing order; None, in the last, for all latents.

    Returns:
        The sum; and the residual of the last level, without gradient.
    """
    if len(levels) > 1:
        codes = by_level(codes, torch.tensor([m for m, _ in levels[:-1]], device=centered.device))
    with torch.autocast(centered.device.type, enabled=False), torch.no_grad():  # `residuals` become `targets` in place
        residuals = gather_by_sample(codes.values, codes.pattern, decoder).neg_().view(len(levels), *centered.shape)
        residuals[0] += centered
        for level in range(1, len(levels)):
            residuals[level] += residuals[level - 1]
        error = sum(weight * _sum_of_squares(r) for r, (_, weight) in zip(residuals, levels, strict=True))
        residual = residuals[-1]
        if len(levels) > 1:
            residual = residual.clone()
            # Σ_{i ≥ l} weight_i · residual_i of each level l: what a latent that level l adds has an effect on.
            targets = residuals.mul_(residuals.new_tensor([weight for _, weight in levels])[:, None, None])
            for level in reversed(range(len(levels) - 1)):
                targets[level] += targets[level + 1]
    return _ReconstructionLoss.apply(shift, encoder, bias, decoder, centered, residuals, codes, error), residual


def _sum_of_squares(residual: Tensor) -> Tensor:
    flat = residual.flatten()
    if flat.dtype in (torch.float16, torch.bfloat16):  # too little precision (and range in float16) for the sum
        flat = flat.float()
    return torch.dot(flat, flat)


def by_level(codes: SparseCodes, ends: Int[Tensor, " levels-1"]) -> SparseCodes:
    """Sort codes by level, and within it by sample: the codes of level l and sample s are those of sample l · b + s.

    Args:
        codes: codes of b samples.
        ends: latent at which each level but the last ends.
    """
    pattern = codes.pattern
    flat = pattern.indices.flatten()
    level = torch.bucketize(flat, ends, right=True)
    samples = level.mul_(pattern.num_samples).add_(pattern.rows)
    order = samples.int().argsort(stable=True)
    counts = torch.bincount(samples, minlength=(len(ends) + 1) * pattern.num_samples)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return SparseCodes(codes.values.flatten()[order], Pattern(flat[order], pattern.num_latents, starts))


class _ReconstructionLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        shift: Tensor,
        encoder: Tensor,
        bias: Tensor | None,
        decoder: Tensor,
        centered: Tensor,
        targets: Tensor,
        codes: SparseCodes,
        error: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(shift, encoder, decoder, centered, targets)
        ctx.codes = codes
        return error.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        shift, encoder, decoder, centered, targets = ctx.saved_tensors
        values, pattern = ctx.codes.values, ctx.codes.pattern
        flat = targets.flatten(0, 1)
        # d loss / d ĉ = −2 · target; multiply the small tensors by the factor instead of the targets.
        factor = (-2 * grad).to(flat.dtype)
        need_shift, need_encoder, need_bias, need_decoder = ctx.needs_input_grad[:4]
        grad_shift = grad_encoder = grad_bias = grad_decoder = None
        if need_shift or need_encoder or need_bias:
            grad_codes = sampled_product(flat, decoder, pattern.indices, pattern.starts).mul_(values > 0).mul_(factor)
        if need_shift or need_bias:
            groups = len(shift)
            by_latent = sum_by_latent(grad_codes, pattern, len(targets) * groups).view(len(targets), groups, -1).sum(0)
            grad_bias = by_latent.sum(0) if need_bias else None
            if need_shift:  # the shift acts on the loss through c itself and through the codes
                target = targets[0].view(groups, -1, centered.shape[1]).sum(1) * factor
                grad_shift = target - by_latent @ encoder
        if need_encoder:
            grad_encoder = gather_by_latent(grad_codes, pattern, centered)
        if need_decoder:
            grad_decoder = gather_by_latent(values * factor, pattern, flat)
        return grad_shift, grad_encoder, grad_bias, grad_decoder, None, None, None, None
