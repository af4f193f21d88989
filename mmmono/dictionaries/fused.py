"""SAE loss with hand-written gradients; its only `[samples, dim]` tensors are the input and the residual."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmmono.dictionaries.sparse import (
    Pattern,
    SparseCodes,
    gather_by_latent,
    gather_by_sample,
    sampled_product,
    select_latents,
    sum_by_latent,
)


def reconstruction_loss(
    centered: Float[Tensor, "samples dim"],
    shift: Float[Tensor, "groups dim"],
    encoder: Float[Tensor, "latents dim"],
    bias: Float[Tensor, " latents"] | None,
    decoder: Float[Tensor, "latents dim"],
    k: int,
) -> tuple[Float[Tensor, ""], Float[Tensor, "samples dim"], SparseCodes]:
    """Sum of ‖c − W_decᵀ TopK(ReLU(W_enc c + bias))‖² over centered samples c = z − shift.

    Args:
        centered: samples minus the pre-bias of their group, without gradient. Groups are equal blocks of rows.
        shift: pre-bias of each group; used only to receive its gradient.
        encoder, bias, decoder: weights of the dictionary, one row per latent.
        k: active latents per sample.

    Returns:
        The sum of squares; the residual c − ĉ and the codes, both without gradient.
    """
    values, indices = select_latents(centered, encoder, bias, k)
    codes = SparseCodes(values.relu_(), Pattern(indices, len(encoder)))
    with torch.autocast(centered.device.type, enabled=False), torch.no_grad():
        residual = gather_by_sample(codes.values, codes.pattern, decoder).neg_().add_(centered)
    return _ReconstructionLoss.apply(shift, encoder, bias, decoder, centered, residual, codes), residual, codes


class _ReconstructionLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        shift: Tensor,
        encoder: Tensor,
        bias: Tensor | None,
        decoder: Tensor,
        centered: Tensor,
        residual: Tensor,
        codes: SparseCodes,
    ) -> Tensor:
        ctx.save_for_backward(shift, encoder, decoder, centered, residual)
        ctx.codes = codes
        flat = residual.flatten()
        if flat.dtype in (torch.float16, torch.bfloat16):  # too little precision (and range in float16) for the sum
            flat = flat.float()
        return torch.dot(flat, flat)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        shift, encoder, decoder, centered, residual = ctx.saved_tensors
        values, pattern = ctx.codes.values, ctx.codes.pattern
        # d loss / d ĉ = −2 · residual; multiply the small tensors by the factor instead of the residual.
        factor = (-2 * grad).to(residual.dtype)
        grad_codes = sampled_product(residual, decoder, pattern.indices).mul_(values > 0).mul_(factor)
        need_shift, _, need_bias, _ = ctx.needs_input_grad[:4]
        grad_shift = grad_bias = None
        if need_shift or need_bias:
            groups = len(shift)
            by_latent = sum_by_latent(grad_codes, pattern, groups)
            grad_bias = by_latent.sum(0) if need_bias else None
            if need_shift:  # the shift acts on the loss through c itself and through the codes
                target = residual.view(groups, -1, residual.shape[1]).sum(1) * factor
                grad_shift = target - by_latent @ encoder
        grad_encoder = gather_by_latent(grad_codes, pattern, centered)
        grad_decoder = gather_by_latent(values * factor, pattern, residual)
        return grad_shift, grad_encoder, grad_bias, grad_decoder, None, None, None
