"""One autoencoder a modality, whose latents are matched after training.

Lee, Kwon, Min and Sohn 2026 (Same concept, different directions: cross-modal feature heterogeneity in sparse autoencoders,
arXiv 2606.29888).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from mmmono.core.ranges import check_whole
from mmmono.dictionaries.two_sided import TwoSidedSAE
from mmmono.features.store import MODALITIES


class MatchedSAEs(TwoSidedSAE):
    """A TopK autoencoder of images and one of texts, trained by Eq. 3 without any term between them.

    A concept may have another direction in images than in texts, and so each side keeps its own. Which latent of the
    texts is which of the images is found afterwards: the one-to-one assignment with the largest sum of correlations of
    their codes across training pairs (Hungarian algorithm), live latents with live ones. Every latent gets a partner, also
    where no other stands for its concept: `match` says how well the two correlate.

    The paper shares a number of latents between the two sides; here each has `num_features`.

    Args:
        dim, num_features: see `TwoSidedSAE`.
        match_pairs: number of training pairs that latents are matched on, spread over all of them.
        two_sided: further arguments of `TwoSidedSAE`.

    Attributes:
        match: correlation of the two sides of each latent on the training pairs; 0 before they are matched.

    Raises:
        ValueError: an argument is invalid.
    """

    architecture = "matched_saes"
    match: Tensor

    def __init__(self, dim: int, num_features: int | None = None, match_pairs: int = 100_000, **two_sided: Any) -> None:
        super().__init__(dim, num_features, **two_sided)
        check_whole("match_pairs", match_pairs, least=2)  # fewer have no correlation
        self.match_pairs = match_pairs
        self.register_buffer("match", torch.zeros(self.num_features))

    def config(self) -> dict[str, Any]:
        """Constructor arguments of this SAE."""
        return {**super().config(), "match_pairs": self.match_pairs}

    def dead_rows(self, silent: Bool[Tensor, "2 latents"]) -> Bool[Tensor, " rows"]:
        """Return the rows of latents that are silent on their own side: until they are matched, the sides are apart."""
        return silent.flatten()

    @torch.no_grad()
    def align(self, partners: Int64[Tensor, " latents"], correlation: Float64[Tensor, " latents"]) -> None:
        """Reorder the texts' latents: latent i becomes what `partners[i]` was.

        Args:
            partners: a permutation of the latents.
            correlation: of latent i of the images with latent `partners[i]` of the texts.
        """
        rows = self._rows(MODALITIES[1])
        partners = partners.to(self.W_enc.device)
        for weight in {self.W_enc, self.W_dec, *([] if self.b_enc is None else [self.b_enc])}:  # tied weights once
            weight[rows] = weight[rows][partners]
        self.match.copy_(correlation)
