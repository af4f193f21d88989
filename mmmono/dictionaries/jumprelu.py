"""JumpReLU sparse autoencoder: each latent learns the threshold above which it is active.

Rajamanoharan et al. 2024 (Jumping ahead: improving reconstruction fidelity with JumpReLU sparse autoencoders, arXiv
2407.14435); Conerly et al. 2025 (Dictionary learning optimization techniques, Transformer Circuits) for the tanh penalty.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mmmono.core.ranges import check_number
from mmmono.dictionaries.autoencoder import DenseCodes, SparseAutoencoder, check_choice
from mmmono.dictionaries.ncl import at_least_float32
from mmmono.dictionaries.parallel import place, sum_over_processes

Penalty = Literal["l0", "tanh"]


@dataclass(frozen=True)
class Jump:
    """How thresholds are learned; see `JumpReLUSAE`."""

    penalty: Penalty = "l0"
    coefficient: float = 1e-2
    target_l0: float | None = None
    bandwidth: float = 0.02
    threshold: float = 0.05
    tanh_scale: float = 4.0

    def __post_init__(self) -> None:
        check_choice("penalty", self.penalty, ("l0", "tanh"))
        for name in ("bandwidth", "threshold", "tanh_scale"):
            check_number(name, getattr(self, name), above=0)
        check_number("coefficient", self.coefficient, least=0)
        if self.target_l0 is not None and self.penalty != "l0":
            raise ValueError(f"target_l0={self.target_l0} needs penalty=l0, not {self.penalty}: give target_l0=null")
        if self.target_l0 is not None:
            check_number("target_l0", self.target_l0, above=0)


class JumpReLUSAE(SparseAutoencoder):
    """code_i = π_i · H(π_i − θ_i) with pre-activations π, thresholds θ ≥ 0 and the step function H.

    The loss is ‖c − ĉ‖² + λ · penalty. The penalty `l0` is ‖code‖_0 = Σ_i H(π_i − θ_i); `tanh` is Σ_i tanh(s · code_i).
    With `target_l0`, the penalty is (mean L0 / target − 1)² instead, which leads to so many active latents; λ is then
    only how strongly it does.

    H has no useful gradient, so its derivative by θ is estimated with a rectangular kernel K of width ε around the
    threshold: ∂H/∂θ = −K((π − θ)/ε)/ε, ∂code/∂θ = −θ K((π − θ)/ε)/ε. The penalty `l0` reaches θ alone, as there; the
    penalty `tanh` reaches the encoder as well. θ itself is learned, not its logarithm as there, and set to 0 where a step
    made it negative: Adam's steps have about one size, whatever the gradient, and would move a small θ = exp(·) by tiny
    amounts only.

    Args:
        dim, num_features: see `SparseAutoencoder`.
        penalty: `l0` or `tanh`.
        coefficient: λ.
        target_l0: wanted number of active latents per sample, for the penalty `l0`; None: none in particular.
        bandwidth: ε.
        threshold: θ at the start.
        tanh_scale: s.
        settings: the above from `penalty` on, and further arguments of `SparseAutoencoder`.

    Raises:
        ValueError: an argument is invalid.
    """

    architecture = "jumprelu_sae"

    def __init__(self, dim: int, num_features: int | None = None, **settings: Any) -> None:
        own = {field.name: settings.pop(field.name) for field in fields(Jump) if field.name in settings}
        super().__init__(dim, num_features, **settings)
        self.jump = Jump(**own)
        if (self.jump.target_l0 or 0) > self.num_features:
            raise ValueError(f"target_l0={self.jump.target_l0} is more than the {self.num_features} latents")
        self.thresholds = nn.Parameter(torch.full((self.num_features,), self.jump.threshold))

    def config(self) -> dict[str, Any]:
        """Constructor arguments of this SAE."""
        return {**super().config(), **asdict(self.jump)}

    def activate(self, activations: Float[Tensor, "samples latents"]) -> Float[Tensor, "samples latents"]:
        """Keep the pre-activations above the latent's threshold."""
        return activations.relu() * (activations > self.thresholds)

    def training_codes(self, centered: Float[Tensor, "samples dim"]) -> DenseCodes:
        """Return the codes of a training batch with their penalty, which has gradients by the thresholds."""
        activations = at_least_float32(F.linear(centered, self.W_enc, self.b_enc))
        jump, to_input = self.jump, self.jump.penalty == "tanh"
        values = _Jump.apply(activations, self.thresholds, jump.bandwidth, True, to_input)
        codes = values.to(self.W_dec.dtype)
        if jump.penalty == "tanh":
            return DenseCodes(codes, jump.coefficient * (jump.tanh_scale * values).tanh().sum())
        l0 = _Jump.apply(activations, self.thresholds, jump.bandwidth, False, False).sum()
        if jump.target_l0 is not None:
            mean = l0 / len(centered)
            of_all = sum_over_processes(mean.detach()) / place()[1]  # if processes share the batch
            # times the number of samples, because penalties are summed over samples
            l0 = len(centered) * ((mean - mean.detach() + of_all) / jump.target_l0 - 1) ** 2
        return DenseCodes(codes, jump.coefficient * l0)

    @torch.no_grad()
    def normalize_decoder_(self) -> None:
        """Normalize the atoms to unit norm, and set negative thresholds to 0, in place."""
        super().normalize_decoder_()
        self.thresholds.clamp_(min=0)


class _Jump(torch.autograd.Function):
    """π · H(π − θ), or H(π − θ), with the estimated gradient by θ, and if wanted the same by π."""

    @staticmethod
    def forward(
        ctx: Any, activations: Tensor, thresholds: Tensor, bandwidth: float, value: bool, to_input: bool
    ) -> Tensor:
        ctx.save_for_backward(activations, thresholds)
        ctx.bandwidth, ctx.value, ctx.to_input = bandwidth, value, to_input
        active = activations > thresholds
        return activations * active if value else active.to(activations.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        activations, thresholds = ctx.saved_tensors
        near = (activations - thresholds).abs() < ctx.bandwidth / 2
        jump = grad * near / ctx.bandwidth
        if ctx.value:
            jump = jump * thresholds
        grad_activations = grad * (activations > thresholds) if ctx.value else None
        if ctx.to_input:
            grad_activations = jump if grad_activations is None else grad_activations + jump
        return grad_activations, -jump.sum(0), None, None, None
