"""Group-sparse autoencoder: the codes of a pair are one group, and both sides choose from the same latents.

Kaushik, Barch and Fanelli 2026 (Decomposing multimodal embedding spaces with group-sparse autoencoders, ICLR, arXiv
2601.20028).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from mmmono.core.ranges import check_number
from mmmono.dictionaries.autoencoder import AutoencoderOutput
from mmmono.dictionaries.paired import PairedTopKSAE
from mmmono.dictionaries.sparse import Pattern, SparseCodes, encode_topk


class GroupSparseSAE(PairedTopKSAE):
    """Loss of Eq. 3 + λ · mean over pairs of Σ_i √(z_i² + w_i²), of the codes z of the image and w of the text.

    This L_{2,1} norm is smaller if both sides have the same active latents than if they have others. In training, latents
    are also masked at random before TopK, the same ones for both sides of every pair, so that both choose from the same
    subset; the masks vary, so that latents which others would always displace get their turn.

    What the paper leaves open, and is ours: the mask is drawn anew in each step for the whole batch, and leaves a fixed
    number of latents instead of each with a probability of its own.

    Args:
        dim, num_features: see `SparseAutoencoder`.
        coefficient: λ.
        mask: share of the latents that a training step leaves out.
        topk: further arguments of `TopKSAE`. The paper has one b_pre for each modality, `center=per_modality`.

    Raises:
        ValueError: an argument is invalid, or the mask leaves fewer than k latents.
    """

    architecture = "group_sparse_sae"
    steps: Tensor  # training batches so far: it seeds the masks, so that a resumed training draws the same

    def __init__(
        self,
        dim: int,
        num_features: int | None = None,
        coefficient: float = 0.3,
        mask: float = 0.1,
        **topk: Any,
    ) -> None:
        super().__init__(dim, num_features, coefficient, **topk)
        check_number("mask", mask, least=0, below=1)
        self.mask = mask
        self.shown = round((1 - mask) * self.num_features)
        if self.shown < self.k:
            raise ValueError(f"mask={mask} leaves {self.shown} of {self.num_features} latents, fewer than k={self.k}")
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def config(self) -> dict[str, Any]:
        """Constructor arguments of this SAE."""
        return {**super().config(), "mask": self.mask}

    def pair_loss(
        self, image: Float[Tensor, "pairs latents"], text: Float[Tensor, "pairs latents"]
    ) -> Float[Tensor, ""]:
        """Return the L_{2,1} norm of the pairs' codes, averaged over pairs."""
        return torch.linalg.vector_norm(torch.stack([image, text]), dim=0).sum(1).mean()

    def forward(self, image: Float[Tensor, "pairs dim"], text: Float[Tensor, "pairs dim"]) -> AutoencoderOutput:
        """Reconstruct a batch of pairs from the latents that this step shows."""
        output = super().forward(image, text)
        self.steps += self.training
        return output

    def shown_latents(self) -> Int64[Tensor, " shown"]:
        """The latents that the next training step may choose from, in order."""
        generator = torch.Generator().manual_seed(int(self.steps))
        order = torch.randperm(self.num_features, generator=generator)[: self.shown]
        return order.sort().values.to(self.W_enc.device)

    def training_codes(self, centered: Float[Tensor, "samples dim"]) -> SparseCodes:
        """Return the codes of a training batch, of latents that are not masked."""
        if not self.mask or not self.training:
            return self.codes(centered)
        shown = self.shown_latents()
        bias = None if self.b_enc is None else self.b_enc.index_select(0, shown)
        if self._sparse(centered):
            codes = encode_topk(centered, self.W_enc.index_select(0, shown), bias, self.k)
        else:
            codes = self.selection.of(F.linear(centered, self.W_enc.index_select(0, shown), bias))
        return SparseCodes(codes.values, Pattern(shown[codes.pattern.indices], self.num_features))
