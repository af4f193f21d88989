"""SPARC: both sides of a pair choose the same latents, and each is also reconstructed from the codes of the other.

Nasiri-Sarvi, Rivaz and Hosseini 2025 (SPARC: concept-aligned sparse autoencoders for cross-model and cross-modal
interpretability, arXiv 2507.06265).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mmmono.core.ranges import check_number
from mmmono.dictionaries.autoencoder import AutoencoderOutput
from mmmono.dictionaries.sparse import Pattern, SparseCodes, encode_at, topk
from mmmono.dictionaries.two_sided import TwoSidedSAE
from mmmono.features.store import MODALITIES


class SparcSAE(TwoSidedSAE):
    """Pre-activations h_I = W_I c_I + b_I and h_T = W_T c_T + b_T; a pair's active latents are TopK(h_I + h_T).

    Codes are ReLU(h_I) and ReLU(h_T) at these latents (Global TopK), and the loss is
    ‖c_I − D_I z_I‖² + ‖c_T − D_T z_T‖² + λ (‖c_I − D_I z_T‖² + ‖c_T − D_T z_I‖²), whose second half is the
    Cross-Reconstruction Loss. The paper divides each term by ‖z‖², which is 1 for embeddings of unit length
    (`features.normalize`).

    After training an image or a text comes alone. Its latents are then TopK of its own pre-activations, as in the
    published code where a stream is missing; so k of them are active, but not surely those of its pair.

    Args:
        dim, num_features: see `TwoSidedSAE`.
        cross_coefficient: λ.
        two_sided: further arguments of `TwoSidedSAE`.

    Raises:
        ValueError: an argument is invalid.
    """

    architecture = "sparc_sae"

    def __init__(
        self, dim: int, num_features: int | None = None, cross_coefficient: float = 0.5, **two_sided: Any
    ) -> None:
        super().__init__(dim, num_features, **two_sided)
        check_number("cross_coefficient", cross_coefficient, least=0)
        self.cross_coefficient = cross_coefficient

    def config(self) -> dict[str, Any]:
        """Constructor arguments of this SAE."""
        return {**super().config(), "cross_coefficient": self.cross_coefficient}

    def forward(self, image: Float[Tensor, "pairs dim"], text: Float[Tensor, "pairs dim"]) -> AutoencoderOutput:
        """Reconstruct a batch of pairs, each side from its own codes and from those of the other."""
        self.check_batch(image, text)
        centered = torch.cat([image - self.bias_of("image"), text - self.bias_of("text")])
        codes = self.training_codes(centered)
        error, residual = self.squared_error(centered, codes)
        swapped = SparseCodes(codes.values.roll(len(image), 0), codes.pattern)  # both sides have the same latents
        cross = self.squared_error(centered, swapped)[0] / len(image)
        penalty = self.cross_coefficient * cross if self.cross_coefficient else None
        return AutoencoderOutput(error / len(image), centered.detach(), residual.detach(), codes, penalty)

    def training_codes(self, centered: Float[Tensor, "samples dim"]) -> SparseCodes:
        """Return the codes of a training batch of pairs, with the same latents on both sides of each."""
        sides = [(side, *self._encoder(m)) for side, m in zip(centered.chunk(2), MODALITIES, strict=True)]
        if not self._sparse(centered):
            activations = [F.linear(*side) for side in sides]
            chosen = topk((activations[0] + activations[1]).detach(), self.k)[1]
            values = [activation.gather(1, chosen).relu() for activation in activations]
        else:
            with torch.no_grad():
                chosen = topk(F.linear(*sides[0]).add_(F.linear(*sides[1])), self.k)[1]
            values = [encode_at(*side, chosen).values for side in sides]
        return SparseCodes(torch.cat(values), Pattern(chosen.repeat(2, 1), self.num_features))
