"""How well a dictionary reconstructs, and how sparse it is: one definition each, over whole sets."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor


def fraction_of_variance_unexplained(
    x: Float[Tensor, "samples dim"], reconstruction: Float[Tensor, "samples dim"]
) -> Float[Tensor, ""]:
    """FVU = Σ‖x − x̂‖² / Σ‖x − mean(x)‖², both sums over all samples, the mean per dimension.

    0 is perfect, 1 what the mean alone explains. Explained variance is 1 − FVU.
    """
    x, reconstruction = x.double(), reconstruction.double()
    return (x - reconstruction).square().sum() / (x - x.mean(0)).square().sum()


@dataclass(frozen=True)
class Sparsity:
    """How sparse a dictionary's features are on the samples of one modality.

    Attributes:
        l0: mean number of active features a sample.
        active: features that some sample activates (Figures 11 and 12).
        dead_fraction: share of features that none does.
    """

    l0: float
    active: int
    dead_fraction: float


@dataclass(frozen=True)
class ReconstructionQuality(Sparsity):
    """How well a dictionary reconstructs the samples of one modality, and how sparsely.

    Attributes:
        fvu: fraction of variance unexplained; explained_variance is 1 − fvu.
        cosine: mean cosine between embedding and reconstruction.
    """

    fvu: float
    explained_variance: float
    cosine: float


class ReconstructionMoments:
    """Sums over the samples of one modality, from which its sparsity and reconstruction quality follow."""

    def __init__(self, dim: int, num_features: int, device: torch.device | str = "cpu") -> None:
        self.fired = torch.zeros(num_features, dtype=torch.bool, device=device)
        self.total = torch.zeros(dim, dtype=torch.float64, device=device)
        self.squared, self.error, self.cosine = (torch.zeros((), dtype=torch.float64, device=device) for _ in range(3))
        self.active = torch.zeros((), dtype=torch.int64, device=device)
        self.count = 0

    def update_codes(self, codes: Float[Tensor, "samples features"]) -> None:
        """Add the codes of a block of samples."""
        active = codes != 0
        self.fired |= active.any(0)
        self.active += active.sum()
        self.count += len(codes)

    def update(
        self,
        x: Float[Tensor, "samples dim"],
        reconstruction: Float[Tensor, "samples dim"],
        codes: Float[Tensor, "samples features"],
    ) -> None:
        """Add a block of samples with their reconstructions and codes."""
        self.update_codes(codes)
        self.total += x.sum(0)
        self.squared += x.double().square().sum()
        self.error += (x - reconstruction).double().square().sum()
        self.cosine += torch.cosine_similarity(x, reconstruction).double().sum()

    def sparsity(self) -> Sparsity:
        """Sparsity over everything added so far."""
        fired = int(self.fired.sum())
        return Sparsity(l0=int(self.active) / self.count, active=fired, dead_fraction=1 - fired / len(self.fired))

    def quality(self) -> ReconstructionQuality:
        """Reconstruction and sparsity over everything added so far."""
        fvu = float(self.error / (self.squared - self.total.square().sum() / self.count))
        return ReconstructionQuality(
            **asdict(self.sparsity()), fvu=fvu, explained_variance=1 - fvu, cosine=float(self.cosine) / self.count
        )
