"""BatchTopK sparse autoencoder: as many active latents as TopK has, but each sample gets as many as it needs.

Bussmann, Leask and Nanda 2024 (BatchTopK sparse autoencoders, arXiv 2412.06410).
"""

from __future__ import annotations

from typing import Any, Unpack

from jaxtyping import Float
from torch import Tensor

from mmmono.dictionaries.autoencoder import Shared
from mmmono.dictionaries.selecting_sae import Kernel, SelectingSAE
from mmmono.dictionaries.selection import PerBatch, PerSample


class BatchTopKSAE(SelectingSAE):
    """Training: BatchTopK(π) keeps the b · k largest of all pre-activations π of a batch of b samples, if positive.

    Encoding: a pre-activation π_i becomes a code if π_i > θ, where θ = E_batch[min{π_i : BatchTopK(π)_i > 0}] is
    estimated by a running mean over the batches of training.
    θ is saved with the weights. So an embedding's codes do not depend on which others are encoded with it, and a batch
    has k of them per sample only on average. A dictionary that has not been trained has no θ: it keeps k per sample.

    Args:
        dim, num_features: see `SparseAutoencoder`.
        k: active latents per sample, on average.
        threshold_rate: weight of the newest batch in the running mean.
        kernel: see `SelectingSAE`.
        shared: further arguments of `SparseAutoencoder`.

    Raises:
        ValueError: an argument is invalid.
    """

    architecture = "batch_topk_sae"

    def __init__(
        self,
        dim: int,
        num_features: int | None = None,
        k: int = 32,
        threshold_rate: float = 0.01,
        kernel: Kernel = "auto",
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(dim, num_features, PerBatch(k, threshold_rate), kernel, **shared)
        self.threshold_rate = threshold_rate

    @property
    def threshold(self) -> Tensor | None:
        """What a pre-activation has to exceed to become a code, θ; None before the first training step."""
        assert isinstance(self.selection, PerBatch)
        threshold = self.selection.threshold
        return threshold if threshold >= 0 else None

    def config(self) -> dict[str, Any]:
        """Constructor arguments of this SAE."""
        return {**super().config(), "threshold_rate": self.threshold_rate}

    def activate(self, activations: Float[Tensor, "samples latents"]) -> Float[Tensor, "samples latents"]:
        """Keep the pre-activations above the threshold."""
        threshold = self.threshold
        if threshold is None:
            return PerSample(self.k).of(activations).dense()
        return activations.relu() * (activations > threshold)
