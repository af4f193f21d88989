"""How well a dictionary reconstructs, and how sparse it is: one definition each, over whole sets."""

from __future__ import annotations

from dataclasses import dataclass

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
class ReconstructionQuality:
    """Quality of a dictionary on the samples of one modality.

    Attributes:
        fvu: fraction of variance unexplained; explained_variance is 1 − fvu.
        cosine: mean cosine between embedding and reconstruction.
        l0: mean number of active features a sample.
        active: features that some sample activates (Figures 11 and 12).
        dead_fraction: share of features that none does.
    """

    fvu: float
    explained_variance: float
    cosine: float
    l0: float
    active: int
    dead_fraction: float


class ReconstructionMoments:
    """Sums over the samples of one modality, from which its `ReconstructionQuality` follows."""

    def __init__(self, dim: int, num_features: int, device: torch.device | str = "cpu") -> None:
        self.total = torch.zeros(dim, dtype=torch.float64, device=device)
        self.fired = torch.zeros(num_features, dtype=torch.bool, device=device)
        # Squared norm, squared error, cosine and active features, summed over samples; then the samples themselves.
        self.sums = torch.zeros(5, dtype=torch.float64, device=device)

    def update(
        self,
        x: Float[Tensor, "samples dim"],
        reconstruction: Float[Tensor, "samples dim"],
        codes: Float[Tensor, "samples features"],
    ) -> None:
        """Add a block of samples with their reconstructions and codes."""
        self.total += x.sum(0)
        active = codes != 0
        self.fired |= active.any(0)
        self.sums += torch.stack(
            [
                x.double().square().sum(),
                (x - reconstruction).double().square().sum(),
                torch.cosine_similarity(x, reconstruction).double().sum(),
                active.sum().double(),
                torch.tensor(float(len(x)), dtype=torch.float64, device=x.device),
            ]
        )

    def quality(self) -> ReconstructionQuality:
        """The metrics over everything added so far."""
        squared, error, cosine, active, count = self.sums.tolist()
        fvu = error / (squared - float(self.total.square().sum()) / count)
        fired = int(self.fired.sum())
        return ReconstructionQuality(
            fvu=fvu,
            explained_variance=1 - fvu,
            cosine=cosine / count,
            l0=active / count,
            active=fired,
            dead_fraction=1 - fired / len(self.fired),
        )
