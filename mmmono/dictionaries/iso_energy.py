"""Aligned sparse autoencoder: a shared concept should have the same energy in both modalities.

Dhimoïla, Fel, Boutin and Picard 2026 (Cross-modal redundancy and the geometry of vision-language embeddings, ICLR, arXiv
2602.06218).
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mmmono.dictionaries.paired import PairedTopKSAE


class IsoEnergySAE(PairedTopKSAE):
    """Loss of Eq. 3 − β · mean over pairs of cos(code of the image, code of the text).

    The Iso-Energy assumption is that a concept of both modalities has the same mean squared code in both. The paper
    encourages it by L_align = −(1/b) Tr(Ẑ_I Ẑ_Tᵀ) over a batch of b pairs, whose rows Ẑ are codes of unit length: the mean
    cosine of the codes of a pair, which is largest if both sides have the same latents in the same proportions.

    The paper's autoencoder is a matching pursuit SAE, and its reconstruction error is a mean over the d dimensions, with
    β about 10⁻⁴. Here it is TopK, so that objectives are compared on the same codes, and Eq. 3 is a sum over dimensions
    and both modalities: its β is 2 d times the paper's, about 0.15 at d = 768.

    Args:
        dim, num_features: see `SparseAutoencoder`.
        coefficient: β.
        topk: further arguments of `TopKSAE`.

    Raises:
        ValueError: an argument is invalid.
    """

    architecture = "iso_energy_sae"

    def pair_loss(
        self, image: Float[Tensor, "pairs latents"], text: Float[Tensor, "pairs latents"]
    ) -> Float[Tensor, ""]:
        """Return −(1/b) Tr(Ẑ_I Ẑ_Tᵀ); a pair with a side without active latents counts as 0."""
        return -(F.normalize(image, dim=1) * F.normalize(text, dim=1)).sum(1).mean()
