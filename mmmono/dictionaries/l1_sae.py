"""Sparse autoencoder with ReLU and an L1 penalty: the baseline that all others improve on.

Bricken et al. 2023 (Towards monosemanticity, Transformer Circuits); Cunningham et al. 2023 (Sparse autoencoders find
highly interpretable features in language models, arXiv 2309.08600).
"""

from __future__ import annotations

from typing import Any, Unpack

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mmmono.core.ranges import check_number
from mmmono.dictionaries.autoencoder import DenseCodes, Shared, SparseAutoencoder


class L1SAE(SparseAutoencoder):
    """code = ReLU(π) with pre-activations π; the loss is ‖c − ĉ‖² + λ Σ_i code_i. Atoms have unit norm.

    Args:
        dim, num_features: see `SparseAutoencoder`.
        coefficient: λ. The larger, the fewer latents are active, and the smaller are all codes.
        shared: further arguments of `SparseAutoencoder`.

    Raises:
        ValueError: an argument is invalid.
    """

    architecture = "l1_sae"

    def __init__(
        self, dim: int, num_features: int | None = None, coefficient: float = 0.2, **shared: Unpack[Shared]
    ) -> None:
        super().__init__(dim, num_features, **shared)
        check_number("coefficient", coefficient, least=0)
        self.coefficient = coefficient

    def config(self) -> dict[str, Any]:
        """Constructor arguments of this SAE."""
        return {**super().config(), "coefficient": self.coefficient}

    def activate(self, activations: Float[Tensor, "samples latents"]) -> Float[Tensor, "samples latents"]:
        """Keep the positive pre-activations."""
        return activations.relu()

    def training_codes(self, centered: Float[Tensor, "samples dim"]) -> DenseCodes:
        """Return the codes of a training batch with their penalty."""
        codes = F.linear(centered, self.W_enc, self.b_enc).relu()
        return DenseCodes(codes, self.coefficient * codes.float().sum())
