"""Sparse autoencoder whose codes also have to tell which image and which text are a pair.

van den Oord, Li and Vinyals 2018 (Representation learning with contrastive predictive coding, arXiv 1807.03748) for the
loss, which CLIP applies to embeddings and Wang et al. 2024 to non-negative features. It has been asked for on the codes of
an SAE beside its reconstruction (SAELens, issue 630). No paper fixes how: similarity, temperature and weight are ours.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mmmono.core.ranges import check_number
from mmmono.dictionaries.ncl import contrastive_loss
from mmmono.dictionaries.paired import PairedTopKSAE
from mmmono.dictionaries.parallel import gather_batch


class InfoNCESAE(PairedTopKSAE):
    """Loss of Eq. 3 + λ · InfoNCE of the codes' cosines over a temperature, averaged over both directions.

    The negatives of a pair are all other pairs of the batch, of all processes.

    Args:
        dim, num_features: see `SparseAutoencoder`.
        coefficient: λ.
        temperature: what cosines are divided by.
        topk: further arguments of `TopKSAE`.

    Raises:
        ValueError: an argument is invalid.
    """

    architecture = "infonce_sae"

    def __init__(
        self,
        dim: int,
        num_features: int | None = None,
        coefficient: float = 0.3,
        temperature: float = 0.2,
        **topk: Any,
    ) -> None:
        super().__init__(dim, num_features, coefficient, **topk)
        check_number("temperature", temperature, above=0)
        self.temperature = temperature

    def config(self) -> dict[str, Any]:
        """Constructor arguments of this SAE."""
        return {**super().config(), "temperature": self.temperature}

    def pair_loss(
        self, image: Float[Tensor, "pairs latents"], text: Float[Tensor, "pairs latents"]
    ) -> Float[Tensor, ""]:
        """Return the contrastive loss of the whole batch."""
        image, text = (gather_batch(F.normalize(side, dim=1)) for side in (image, text))
        return contrastive_loss(image, text, 1 / self.temperature)
