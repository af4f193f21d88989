"""Gated sparse autoencoder: whether a latent is active, and how much, are two questions.

Rajamanoharan et al. 2024 (Improving dictionary learning with gated sparse autoencoders, arXiv 2404.16014).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmmono.core.ranges import check_number
from mmmono.dictionaries.autoencoder import Codes, DenseCodes, Shared, SparseAutoencoder


@dataclass(frozen=True)
class GatedCodes(DenseCodes):
    """Codes with what decided about them.

    Attributes:
        gates: ReLU(π_gate), through which alone the gates learn.
    """

    gates: Float[Tensor, "samples latents"] | None = None


class GatedSAE(SparseAutoencoder):
    """code = 1[π_gate > 0] · ReLU(π_mag), where π_gate = W_enc c + b_gate and π_mag = e^{r_mag} · W_enc c + b_mag.

    The loss is ‖c − ĉ‖² + λ ‖ReLU(π_gate)‖_1 + ‖c − W_decᵀ ReLU(π_gate)‖², and decoder and b_pre get no gradient from the
    reconstruction in the last term. So the penalty shrinks the gates, not the codes.

    Args:
        dim, num_features: see `SparseAutoencoder`.
        coefficient: λ.
        shared: further arguments of `SparseAutoencoder`; `encoder_bias` is b_gate.

    Raises:
        ValueError: an argument is invalid, or `encoder_bias` is false.
    """

    architecture = "gated_sae"

    def __init__(
        self, dim: int, num_features: int | None = None, coefficient: float = 0.3, **shared: Unpack[Shared]
    ) -> None:
        shared.setdefault("encoder_bias", True)
        super().__init__(dim, num_features, **shared)
        check_number("coefficient", coefficient, least=0)
        if self.b_enc is None:
            raise ValueError("encoder_bias=False takes away the bias of the gates: give encoder_bias=True")
        self.coefficient = coefficient
        self.r_mag = nn.Parameter(torch.zeros(self.num_features))
        self.b_mag = nn.Parameter(torch.zeros(self.num_features))

    def config(self) -> dict[str, Any]:
        """Constructor arguments of this SAE."""
        return {**super().config(), "coefficient": self.coefficient}

    def activate(self, activations: Float[Tensor, "samples latents"]) -> Float[Tensor, "samples latents"]:
        """Return the codes of the gates' pre-activations π_gate."""
        assert self.b_enc is not None
        magnitudes = (self.r_mag.exp() * (activations - self.b_enc) + self.b_mag).relu()
        return (activations > 0) * magnitudes

    def training_codes(self, centered: Float[Tensor, "samples dim"]) -> GatedCodes:
        """Return the codes of a training batch with the penalty on their gates."""
        activations = F.linear(centered, self.W_enc, self.b_enc)
        gates = activations.relu()
        return GatedCodes(self.activate(activations), self.coefficient * gates.float().sum(), gates)

    def squared_error(
        self, centered: Float[Tensor, "samples dim"], codes: Codes
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "samples dim"]]:
        """Return the squared errors of the codes plus those of the gates, and the residuals of the codes."""
        error, residual = super().squared_error(centered, codes)
        assert isinstance(codes, GatedCodes)
        assert codes.gates is not None
        # Neither the decoder nor b_pre learns from this term, but for the b_pre that the gates subtract.
        by_gates = centered.detach() - codes.gates @ self.W_dec.detach()
        return error + by_gates.square().sum(), residual
