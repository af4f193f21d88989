"""Base class of TopK autoencoders whose loss also compares the codes of the two sides of each pair."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.core.ranges import check_number
from mmmono.dictionaries.autoencoder import AutoencoderOutput, SparseAutoencoder
from mmmono.dictionaries.ncl import at_least_float32
from mmmono.dictionaries.sae import TopKSAE


class PairedTopKSAE(TopKSAE, ABC):
    """Loss of Eq. 3 + coefficient · pair loss of the codes; encoding is that of `TopKSAE`.

    Args:
        dim, num_features: see `SparseAutoencoder`.
        coefficient: weight of the pair loss; with 0 this is a `TopKSAE`.
        topk: further arguments of `TopKSAE`.

    Raises:
        ValueError: an argument is invalid.
    """

    def __init__(self, dim: int, num_features: int | None = None, coefficient: float = 0.3, **topk: Any) -> None:
        super().__init__(dim, num_features, **topk)
        check_number("coefficient", coefficient, least=0)
        self.coefficient = coefficient

    def config(self) -> dict[str, Any]:
        """Constructor arguments of this SAE."""
        return {**super().config(), "coefficient": self.coefficient}

    @abstractmethod
    def pair_loss(
        self, image: Float[Tensor, "pairs latents"], text: Float[Tensor, "pairs latents"]
    ) -> Float[Tensor, ""]:
        """Return what the codes of pairs add to the loss, without the coefficient.

        If processes share a batch, the mean of their pair losses is that of the whole batch.

        Args:
            image, text: codes, at least float32; row i of both belongs to the same pair.
        """

    def forward(self, image: Float[Tensor, "pairs dim"], text: Float[Tensor, "pairs dim"]) -> AutoencoderOutput:
        """Reconstruct a batch of pairs, and compare their codes."""
        # Gradients of the codes are needed, which the hand-written ones of the reconstruction alone do not give.
        output = SparseAutoencoder.forward(self, image, text)
        if not self.coefficient:
            return output
        with torch.autocast(image.device.type, enabled=False):
            loss = self.pair_loss(*at_least_float32(output.codes.dense()).chunk(2))
        return replace(output, penalty=self.coefficient * loss)
