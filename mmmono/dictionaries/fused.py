"""SAE loss with hand-written gradients; its only `[samples, dim]` tensors are the input and the residuals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

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
    sum_by_latent,
)

CHUNK_ROWS = 128  # rows whose residuals of all levels fit into a core's cache

# Number of latents m, and weight, of each level of a loss in increasing order; m is None for all latents.
Levels = Sequence[tuple[int | None, float]]
WHOLE: Levels = ((None, 1.0),)


class Weights(NamedTuple):
    """Weights of a dictionary, one row per latent.

    Attributes:
        shift: pre-bias of each group of samples; used only to receive its gradient. Groups are equal blocks of rows.
        encoder, bias, decoder: W_enc, b_enc and W_dec.
    """

    shift: Float[Tensor, "groups dim"]
    encoder: Float[Tensor, "latents dim"]
    bias: Float[Tensor, " latents"] | None
    decoder: Float[Tensor, "latents dim"]


def reconstruction_loss(
    centered: Float[Tensor, "samples dim"],
    weights: Weights,
    codes: SparseCodes,
    levels: Levels = WHOLE,
) -> tuple[Float[Tensor, ""], Float[Tensor, "samples dim"]]:
    """Weighted sum over levels of ‖c − Σ_{j < m} code_j · atom_j‖² over centered samples c = z − shift.

    A level reconstructs from the first m latents alone. The work is that of one level but for sums of residuals: each
    latent's contribution is computed once.

    Args:
        centered: samples minus the pre-bias of their group, without gradient.
        weights: weights of the dictionary, which receive gradients.
        codes: the active latents' ReLU(W_enc c + bias), without gradient.
        levels: number of latents m and weight of each level; the last has all latents.

    Returns:
        The sum; and the residual of the last level, without gradient.
    """
    ends = [len(weights.decoder) if end is None else end for end, _ in levels]
    sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    parts = by_level(codes, sizes)
    with torch.autocast(centered.device.type, enabled=False), torch.no_grad():
        atoms = weights.decoder.split(sizes)
        targets = [gather_by_sample(part.values, part.pattern, a) for part, a in zip(parts, atoms, strict=True)]
        error, residual = _into_targets(centered, targets, [weight for _, weight in levels])
    return _ReconstructionLoss.apply(*weights, centered, _Computed(error, targets, parts)), residual


def by_level(codes: SparseCodes, sizes: Sequence[int]) -> list[SparseCodes]:
    """Split codes into those of the first latents, of the next, and so on, each as if it were a dictionary of its own.

    Args:
        codes: codes of a dictionary.
        sizes: number of latents of each part; they sum to the dictionary's.
    """
    if len(sizes) == 1:
        return [codes]
    pattern, latents = codes.pattern, codes.pattern.indices.flatten()
    ends = torch.tensor(sizes, device=latents.device).cumsum(0)
    level = torch.bucketize(latents, ends, right=True)
    order = level.to(torch.uint8 if len(sizes) < 256 else torch.int32).argsort(
        stable=True
    )  # entries are by sample already
    counts = torch.bincount(level * pattern.num_samples + pattern.rows, minlength=len(sizes) * pattern.num_samples)
    counts = counts.view(len(sizes), -1)
    values = codes.values.flatten()[order].split(counts.sum(1).tolist())
    local = (latents - (ends - ends.new_tensor(sizes))[level])[order].split(counts.sum(1).tolist())
    starts = torch.cat([counts.new_zeros(len(sizes), 1), counts.cumsum(1)], dim=1)
    return [SparseCodes(v, Pattern(i, n, s)) for v, i, n, s in zip(values, local, sizes, starts, strict=True)]


def _into_targets(
    centered: Float[Tensor, "samples dim"], added: list[Float[Tensor, "samples dim"]], weights: Sequence[float]
) -> tuple[Float[Tensor, ""], Float[Tensor, "samples dim"]]:
    """Turn what each level adds to the reconstruction into its target; return the error and the last residual.

    The residual of level l is c − Σ_{i ≤ l} added_i. Its target is Σ_{i ≥ l} weight_i · residual_i: what the latents of
    level l have an effect on. With one level, of weight 1, both are the same.
    """
    if len(weights) == 1:
        residual = added[0].neg_().add_(centered)
        return _sum_of_squares(residual), residual
    last = torch.empty_like(centered)
    error = centered.new_zeros((), dtype=torch.promote_types(centered.dtype, torch.float32))
    for start in range(0, len(centered), CHUNK_ROWS):
        levels = [level[start : start + CHUNK_ROWS] for level in added]
        before = centered[start : start + CHUNK_ROWS]
        for weight, level in zip(weights, levels, strict=True):
            before = torch.sub(before, level, out=level)
            error += weight * _sum_of_squares(before)
        last[start : start + CHUNK_ROWS] = before
        after = before.mul_(weights[-1])
        for weight, level in zip(weights[-2::-1], levels[-2::-1], strict=True):
            after = torch.add(after, level, alpha=weight, out=level)
    return error, last


def _sum_of_squares(residual: Tensor) -> Tensor:
    flat = residual.flatten()
    if flat.dtype in (torch.float16, torch.bfloat16):  # too little precision (and range in float16) for the sum
        flat = flat.float()
    return torch.dot(flat, flat)


class _Computed(NamedTuple):
    error: Tensor
    targets: list[Tensor]
    parts: list[SparseCodes]


class _ReconstructionLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        shift: Tensor,
        encoder: Tensor,
        bias: Tensor | None,
        decoder: Tensor,
        centered: Tensor,
        computed: _Computed,
    ) -> Tensor:
        ctx.save_for_backward(shift, encoder, decoder, centered, *computed.targets)
        ctx.parts = computed.parts
        return computed.error.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        shift, encoder, decoder, centered, *targets = ctx.saved_tensors
        need_shift, need_encoder, need_bias, need_decoder = ctx.needs_input_grad[:4]
        # d loss / d ĉ = −2 · target; multiply the small tensors by the factor instead of the targets.
        factor = (-2 * grad).to(centered.dtype)
        encoders: list[Tensor] = []
        decoders: list[Tensor] = []
        sums: list[Tensor] = []
        atoms = decoder.split([part.pattern.num_latents for part in ctx.parts])
        for part, target, rows in zip(ctx.parts, targets, atoms, strict=True):
            values, pattern = part.values, part.pattern
            if need_shift or need_encoder or need_bias:
                grad_codes = sampled_product(target, rows, pattern.indices, pattern.starts)
                grad_codes.mul_(values > 0).mul_(factor)
                sums += [sum_by_latent(grad_codes, pattern, len(shift))] if need_shift or need_bias else []
                encoders += [gather_by_latent(grad_codes, pattern, centered)] if need_encoder else []
            decoders += [gather_by_latent(values * factor, pattern, target)] if need_decoder else []
        grad_shift = None
        if need_shift:  # the shift acts on the loss through c itself and through the codes
            target = targets[0].view(len(shift), -1, centered.shape[1]).sum(1) * factor
            grad_shift = target - torch.cat(sums, dim=1) @ encoder
        return (
            grad_shift,
            _joined(encoders),
            torch.cat(sums, dim=1).sum(0) if need_bias else None,
            _joined(decoders),
            None,
            None,
        )


def _joined(parts: list[Tensor]) -> Tensor | None:
    return (parts[0] if len(parts) == 1 else torch.cat(parts)) if parts else None
