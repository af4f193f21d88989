"""How well a dictionary reconstructs, and how sparse it is: one definition each, over whole sets."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.core.finite import check_finite, double, unit_rows
from mmmono.dictionaries.parallel import any_over_processes, sum_over_processes

CHUNK_ROWS = 256  # so few that a chunk's float64 numbers stay in a core's second-level cache through all passes


def fraction_of_variance_unexplained(
    x: Float[Tensor, "samples dim"], reconstruction: Float[Tensor, "samples dim"]
) -> Float[Tensor, ""]:
    """FVU = Σ‖x − x̂‖² / Σ‖x − mean(x)‖², both sums over all samples, the mean per dimension.

    0 is perfect, 1 what the mean alone explains, NaN where x does not vary. Explained variance is 1 − FVU. In float64.
    Raises NonFiniteError if a number is NaN or infinite.
    """
    check_finite(x, "sample", column="dimension")
    check_finite(reconstruction, "reconstruction", column="dimension")
    x, reconstruction = x.double(), reconstruction.double()
    deviation = x - x[:1]  # whose mean is exactly 0 where x is constant
    variance = (deviation - deviation.mean(0)).square().sum()
    return torch.where(variance > 0, (x - reconstruction).square().sum() / variance, torch.nan)


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
        cosine: mean cosine between embedding and reconstruction; 0 of a sample where either is all zeros.
    """

    fvu: float
    explained_variance: float
    cosine: float


class ReconstructionMoments:
    """Sums over the samples of one modality, from which its sparsity and reconstruction quality follow.

    All are float64. The variance is kept as the sum of squared distances from the mean so far (Chan et al. 1979), which
    loses nothing where the mean is far from zero. Everything is NaN before there is a sample.
    """

    def __init__(self, dim: int, num_features: int, device: torch.device | str = "cpu") -> None:
        self.fired = torch.zeros(num_features, dtype=torch.bool, device=device)
        self.mean = torch.zeros(dim, dtype=torch.float64, device=device)
        self.scatter, self.error, self.cosine = (torch.zeros((), dtype=torch.float64, device=device) for _ in range(3))
        self.active = torch.zeros((), dtype=torch.int64, device=device)
        self.count = 0

    def update_codes(self, codes: Float[Tensor, "samples features"]) -> None:
        """Add the codes of a block of samples. Raises NonFiniteError if one is NaN or infinite."""
        check_finite(codes, "sample", self.count)
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
        """Add a block of samples with their reconstructions and codes.

        Raises:
            NonFiniteError: a number is NaN or infinite.
        """
        for rows in zip(x.split(CHUNK_ROWS), reconstruction.split(CHUNK_ROWS), codes.split(CHUNK_ROWS), strict=True):
            self._update(*rows)

    def _update(self, x: Tensor, reconstruction: Tensor, codes: Tensor) -> None:
        if not len(x):
            return
        for values, name in ((x, "sample"), (reconstruction, "reconstruction")):
            check_finite(values, name, self.count, "dimension")
        x, reconstruction = double(x), double(reconstruction)
        deviation = x - x[:1]  # whose mean is exactly 0 where x is constant
        mean = deviation.mean(0)
        self._add_scatter(len(x), x[0] + mean, (deviation - mean).square().sum())
        self.error += (x - reconstruction).square().sum()
        self.cosine += torch.linalg.vecdot(unit_rows(x), unit_rows(reconstruction)).sum()
        self.update_codes(codes)

    def merge_processes(self) -> None:
        """Make these the sums over the samples of all processes of a distributed training."""
        self.fired = any_over_processes(self.fired)
        self.active, self.error, self.cosine = map(sum_over_processes, (self.active, self.error, self.cosine))
        count = int(sum_over_processes(torch.tensor(self.count, device=self.mean.device)))
        mean = sum_over_processes(self.mean * self.count) / max(1, count)
        self.scatter = sum_over_processes(self.scatter + self.count * (self.mean - mean).square().sum())
        self.count, self.mean = count, mean

    def sparsity(self) -> Sparsity:
        """Sparsity over everything added so far."""
        fired = int(self.fired.sum())
        if not self.count:
            return Sparsity(l0=float("nan"), active=0, dead_fraction=float("nan"))
        return Sparsity(l0=int(self.active) / self.count, active=fired, dead_fraction=1 - fired / len(self.fired))

    def quality(self) -> ReconstructionQuality:
        """Reconstruction and sparsity over everything added so far."""
        rounding = 1e-28 * self.count * float(self.mean.square().sum())  # what it leaves of a variance that is 0
        fvu = float(self.error / self.scatter) if float(self.scatter) > rounding else float("nan")
        cosine = float(self.cosine) / self.count if self.count else float("nan")
        return ReconstructionQuality(**asdict(self.sparsity()), fvu=fvu, explained_variance=1 - fvu, cosine=cosine)

    def _add_scatter(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        """Merge a block's mean and squared distances with those before it; called before `count` grows."""
        total = self.count + count
        moved = mean - self.mean
        self.scatter += scatter + moved.square().sum() * (self.count * count / total)
        self.mean += moved * (count / total)
