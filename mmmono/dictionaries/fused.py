"""SAE loss with hand-written gradients; its only `[samples, dim]` tensors are the input and the residuals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmmono.core.extras import is_installed
from mmmono.core.parts import in_parts, num_parts
from mmmono.dictionaries.sparse import (
    Pattern,
    SparseCodes,
    gather_by_latent,
    gather_by_sample,
    sampled_product,
    sum_by_latent,
)

WORTH_COMPILING = 1 << 18  # samples × dim of a batch
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
    count = len(weights.decoder)
    codes = by_level(codes, [count if end is None else end for end, _ in levels])
    with torch.autocast(centered.device.type, enabled=False), torch.no_grad():
        targets, error, residual = _targets(centered, weights.decoder, codes, [weight for _, weight in levels])
    return _ReconstructionLoss.apply(*weights, centered, _Computed(error, targets, codes)), residual


def by_level(codes: SparseCodes, ends: Sequence[int]) -> SparseCodes:
    """Make a row for each level of each sample, with the codes of the latents that this level adds.

    Args:
        codes: codes of `samples` samples.
        ends: number of latents m of each level; the last has all.

    Returns:
        Codes of `samples * levels` rows, all levels of the first sample before those of the second.
    """
    levels, pattern = len(ends), codes.pattern
    if levels == 1:
        return codes
    latents, rows = pattern.indices.flatten(), pattern.num_samples * levels
    size = torch.tensor([end - start for start, end in zip([0, *ends], ends, strict=False)], device=latents.device)
    level = torch.arange(levels, dtype=torch.int32, device=latents.device).repeat_interleave(size)
    row = level[latents].add_(pattern.rows, alpha=levels)
    starts = torch.cat([latents.new_zeros(1), torch.bincount(row, minlength=rows).cumsum(0)])
    values = codes.values.flatten()
    if not bool((row[1:] >= row[:-1]).all()):  # the latents of a sample are not in order
        order = (row.to(torch.int16) if rows <= 1 << 15 else row).argsort(stable=True)
        values, latents = values[order], latents[order]
    return SparseCodes(values, Pattern(latents, pattern.num_latents, starts))


def _targets(
    centered: Float[Tensor, "samples dim"],
    decoder: Float[Tensor, "latents dim"],
    codes: SparseCodes,
    weights: Sequence[float],
) -> tuple[Float[Tensor, "rows dim"], Float[Tensor, ""], Float[Tensor, "samples dim"]]:
    """Return the target of each level of each sample, the error, and the residual of the last level.

    A level adds the reconstruction from its latents. The residual of level l is c − Σ_{i ≤ l} added_i. Its target is
    Σ_{i ≥ l} weight_i · residual_i: what the latents of level l have an effect on. With one level, of weight 1, both are
    the same.
    """
    if len(weights) > 1 and _is_compiled(centered, decoder, codes):
        return _compiled_targets(centered, decoder.detach(), codes, weights)
    added = gather_by_sample(codes.values, codes.pattern, decoder)
    if len(weights) == 1:
        residual = added.neg_().add_(centered)
        return residual, _sum_of_squares(residual), residual
    last = torch.empty_like(centered)
    error = centered.new_zeros((), dtype=torch.promote_types(centered.dtype, torch.float32))
    by_sample = added.view(len(centered), len(weights), -1)
    for start in range(0, len(centered), CHUNK_ROWS):
        levels = by_sample[start : start + CHUNK_ROWS].unbind(1)
        before = centered[start : start + CHUNK_ROWS]
        for weight, level in zip(weights, levels, strict=True):
            before = torch.sub(before, level, out=level)
            error += weight * _sum_of_squares(before)
        last[start : start + CHUNK_ROWS] = before
        after = before.mul_(weights[-1])
        for weight, level in zip(weights[-2::-1], levels[-2::-1], strict=True):
            after = torch.add(after, level, alpha=weight, out=level)
    return added, error, last


def _is_compiled(centered: Tensor, decoder: Tensor, codes: SparseCodes) -> bool:
    """Whether targets are computed by a numba kernel: on a CPU, in float32, for batches that are worth loading numba."""
    if centered.device.type != "cpu" or {centered.dtype, decoder.dtype, codes.values.dtype} != {torch.float32}:
        return False
    return centered.numel() >= WORTH_COMPILING and is_installed("numba", "llvmlite")


def _compiled_targets(
    centered: Tensor, decoder: Tensor, codes: SparseCodes, weights: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor]:
    """See `_targets`: the same numbers but for the rounding of the error, written once."""
    from mmmono.core.nested_targets import nested_targets

    levels, starts = len(weights), codes.pattern.row_starts.numpy()
    last = torch.empty_like(centered)
    targets = centered.new_empty(len(centered) * levels, centered.shape[1])
    inputs, outputs, residuals, atoms = (x.numpy() for x in (centered, targets, last, decoder))
    entries = codes.values.numpy(), codes.pattern.indices.numpy()
    shares = np.array(weights, np.float32)

    def work(_: int, start: int, end: int) -> float:
        rows, nested = slice(start, end), slice(start * levels, end * levels)
        begins = starts[nested.start : nested.stop + 1]
        return nested_targets(inputs[rows], atoms, (*entries, begins), shares, outputs[nested], residuals[rows])

    errors = in_parts(work, len(centered), num_parts())
    return targets, centered.new_tensor(sum(errors)), last


def _sum_of_squares(residual: Tensor) -> Tensor:
    flat = residual.flatten()
    if flat.dtype in (torch.float16, torch.bfloat16):  # too little precision (and range in float16) for the sum
        flat = flat.float()
    return torch.dot(flat, flat)


class _Computed(NamedTuple):
    error: Tensor
    targets: Tensor
    codes: SparseCodes


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
        ctx.save_for_backward(shift, encoder, decoder, centered, computed.targets)
        ctx.codes = computed.codes
        return computed.error.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        shift, encoder, decoder, centered, targets = ctx.saved_tensors
        values, pattern = ctx.codes.values, ctx.codes.pattern
        need_shift, need_encoder, need_bias, need_decoder = ctx.needs_input_grad[:4]
        levels = len(targets) // len(centered)
        # d loss / d ĉ = −2 · target; multiply the small tensors by the factor instead of the targets.
        factor = (-2 * grad).to(centered.dtype)
        grad_shift = grad_encoder = grad_bias = grad_decoder = None
        if need_shift or need_encoder or need_bias:
            grad_codes = sampled_product(targets, decoder, pattern.indices, pattern.starts)
            grad_codes.mul_(values > 0).mul_(factor)
            if need_encoder:
                grad_encoder = gather_by_latent(grad_codes, pattern, centered, levels)
            if need_shift or need_bias:
                sums = sum_by_latent(grad_codes, pattern, len(shift))
                grad_bias = sums.sum(0) if need_bias else None
            if need_shift:  # the shift acts on the loss through c itself and through the codes
                target = targets.view(len(shift), -1, levels, centered.shape[1])[:, :, 0].sum(1) * factor
                grad_shift = target - sums @ encoder
        if need_decoder:
            grad_decoder = gather_by_latent(values * factor, pattern, targets)
        return grad_shift, grad_encoder, grad_bias, grad_decoder, None, None
