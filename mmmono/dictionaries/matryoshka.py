"""Matryoshka sparse autoencoder: the first latents alone, the first few more, … have to reconstruct the input.

Bussmann et al. 2025 (Learning multi-level features with Matryoshka sparse autoencoders, arXiv 2503.17547); Zaigrajew,
Baniecki and Biecek 2025 (Interpreting CLIP with hierarchical sparse autoencoders, arXiv 2502.20578) for the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from mmmono.core.ranges import check_number
from mmmono.dictionaries.autoencoder import check_choice
from mmmono.dictionaries.batch_topk import BatchTopKSAE
from mmmono.dictionaries.fused import Levels
from mmmono.dictionaries.selection import PerSample

# Shares of the latents that the levels of Bussmann et al. have: 2048, 6144, 14336, 30720 of 65536, and all.
SHARES = (0.03125, 0.09375, 0.21875, 0.46875, 1.0)

Weighting = Literal["uniform", "reverse"]
Select = Literal["batch", "sample"]


class MatryoshkaSAE(BatchTopKSAE):
    """Loss Σ_l α_l ‖c − Σ_{j < m_l} code_j · atom_j‖² with nested m_1 < … < m_L = n (Bussmann et al. 2025).

    Early latents take part in every term, so they learn what is general, and do not leave it to many special ones. α is
    `uniform`, or `reverse`: α_l ∝ L − l + 1, which stresses the small levels (UW and RW of Zaigrajew et al., whose levels
    are numbers of active latents instead). Here α sums to 1, so that learning rate, clipping and the auxiliary loss mean
    what they do without levels.

    Args:
        dim, num_features: see `SparseAutoencoder`.
        levels: m_l as shares of the latents, increasing; the last is 1.
        weighting: `uniform` or `reverse`.
        select: `batch` trains and encodes as `BatchTopKSAE` does, `sample` as `TopKSAE` does.
        batch: further arguments of `BatchTopKSAE`, such as `k`, which with `select=sample` is that of each sample.

    Raises:
        ValueError: an argument is invalid, or a level adds no latent.
    """

    architecture = "matryoshka_sae"

    def __init__(
        self,
        dim: int,
        num_features: int | None = None,
        levels: Sequence[float] = SHARES,
        weighting: Weighting = "uniform",
        select: Select = "batch",
        **batch: Any,
    ) -> None:
        super().__init__(dim, num_features, **batch)
        check_choice("weighting", weighting, ("uniform", "reverse"))
        check_choice("select", select, ("batch", "sample"))
        for share in levels:
            check_number("levels", share, above=0, most=1)
        self.shares = [float(share) for share in levels]
        self.weighting: Weighting = weighting
        self.select: Select = select
        if select == "sample":
            self.selection = PerSample(self.k)
        self.ends = [round(share * self.num_features) for share in self.shares]
        if (
            not self.ends
            or self.shares[-1] != 1
            or any(b <= a for a, b in zip([0, *self.ends], self.ends, strict=False))
        ):
            raise ValueError(
                f"levels={self.shares} are not increasing shares of the {self.num_features} latents up to 1, "
                f"each with a latent more than the one before: {self.ends}"
            )

    @property
    def levels(self) -> Levels:
        """Number of latents that each level of the loss reconstructs from, and its weight."""
        count = len(self.ends)
        weights = [1.0] * count if self.weighting == "uniform" else [float(count - level) for level in range(count)]
        return [(end, weight / sum(weights)) for end, weight in zip(self.ends, weights, strict=True)]

    @property
    def threshold(self) -> Tensor | None:
        """See `BatchTopKSAE.threshold`; None as well if each sample is selected from alone."""
        return super().threshold if self.select == "batch" else None

    def config(self) -> dict[str, Any]:
        """Constructor arguments of this SAE."""
        return {**super().config(), "levels": self.shares, "weighting": self.weighting, "select": self.select}
