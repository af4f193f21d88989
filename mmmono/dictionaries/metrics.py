"""Reconstruction and sparsity metrics of dictionaries, computed over whole data sets, not averaged over batches."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.core.finite import check_finite, double, unit_rows
from mmmono.dictionaries.parallel import any_over_processes, sum_over_processes

CHUNK_ROWS = 256  # a chunk in float64 fits into a core's L2 cache


def fraction_of_variance_unexplained(
    x: Float[Tensor, "samples dim"], reconstruction: Float[Tensor, "samples dim"]
) -> Float[Tensor, ""]:
    """FVU = Σ‖x − x̂‖² / Σ‖x − mean(x)‖², with sums over all samples and the mean of each dimension, in float64.

    0 is a perfect reconstruction, 1 is as good as the mean, NaN if x is constant. Explained variance is 1 − FVU.

    Raises:
        NonFiniteError: a sample or reconstruction is NaN or infinite.
    """
    check_finite(x, "sample", column="dimension")
    check_finite(reconstruction, "reconstruction", column="dimension")
    x, reconstruction = x.double(), reconstruction.double()
    deviation = x - x[:1]  # exactly 0 if x is constant, and so is its mean
    variance = (deviation - deviation.mean(0)).square().sum()
    return torch.where(variance > 0, (x - reconstruction).square().sum() / variance, torch.nan)


@dataclass(frozen=True)
class Sparsity:
    """Sparsity of a dictionary's features on the samples of one modality.

    Attributes:
        l0: mean number of active (non-zero) features per sample.
        active: number of features that are active on at least one sample (Figures 11 and 12).
        dead_fraction: fraction of features that are active on no sample.
    """

    l0: float
    active: int
    dead_fraction: float


@dataclass(frozen=True)
class ReconstructionQuality(Sparsity):
    """Reconstruction quality and sparsity of a dictionary on the samples of one modality.

    Attributes:
        fvu: fraction of variance unexplained, see `fraction_of_variance_unexplained`.
        explained_variance: 1 − fvu.
        cosine: mean cosine similarity of embedding and reconstruction; a sample with an all-zero vector counts as 0.
    """

    fvu: float
    explained_variance: float
    cosine: float


class ReconstructionMoments:
    """Accumulate the sparsity and reconstruction quality of one modality over blocks of samples.

    Sums are float64. The variance is the sum of squared distances from the running mean (Chan et al. 1979), which stays
    accurate if the mean is far from zero. Without samples, all metrics but `active` (0) are NaN.
    """

    def __init__(self, dim: int, num_features: int, device: torch.device | str = "cpu") -> None:
        self.fired = torch.zeros(num_features, dtype=torch.bool, device=device)
        self.mean = torch.zeros(dim, dtype=torch.float64, device=device)
        self.scatter, self.error, self.cosine = (torch.zeros((), dtype=torch.float64, device=device) for _ in range(3))
        self.active = torch.zeros((), dtype=torch.int64, device=device)
        self.count = 0

    def update_codes(self, codes: Float[Tensor, "samples features"]) -> None:
        """Add the codes of a block of samples. Raises NonFiniteError if a code is NaN or infinite."""
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
            NonFiniteError: a sample, reconstruction or code is NaN or infinite.
        """
        for rows in zip(x.split(CHUNK_ROWS), reconstruction.split(CHUNK_ROWS), codes.split(CHUNK_ROWS), strict=True):
            self._update(*rows)

    def _update(self, x: Tensor, reconstruction: Tensor, codes: Tensor) -> None:
        if not len(x):
            return
        for values, name in ((x, "sample"), (reconstruction, "reconstruction")):
            check_finite(values, name, self.count, "dimension")
        x, reconstruction = double(x), double(reconstruction)
        deviation = x - x[:1]  # exactly 0 if x is constant, and so is its mean
        mean = deviation.mean(0)
        self._add_scatter(len(x), x[0] + mean, (deviation - mean).square().sum())
        self.error += (x - reconstruction).square().sum()
        self.cosine += torch.linalg.vecdot(unit_rows(x), unit_rows(reconstruction)).sum()
        self.update_codes(codes)

    def merge_processes(self) -> None:
        """Merge the sums of all processes of a distributed training; each process then holds the total."""
        self.fired = any_over_processes(self.fired)
        self.active, self.error, self.cosine = map(sum_over_processes, (self.active, self.error, self.cosine))
        count = int(sum_over_processes(torch.tensor(self.count, device=self.mean.device)))
        mean = sum_over_processes(self.mean * self.count) / max(1, count)
        self.scatter = sum_over_processes(self.scatter + self.count * (self.mean - mean).square().sum())
        self.count, self.mean = count, mean

    def sparsity(self) -> Sparsity:
        """Sparsity on all samples added so far."""
        fired = int(self.fired.sum())
        if not self.count:
            return Sparsity(l0=float("nan"), active=0, dead_fraction=float("nan"))
        return Sparsity(l0=int(self.active) / self.count, active=fired, dead_fraction=1 - fired / len(self.fired))

    def quality(self) -> ReconstructionQuality:
        """Reconstruction quality and sparsity on all samples added so far."""
        rounding = 1e-28 * self.count * float(self.mean.square().sum())  # of the scatter if the true variance is 0
        fvu = float(self.error / self.scatter) if float(self.scatter) > rounding else float("nan")
        cosine = float(self.cosine) / self.count if self.count else float("nan")
        return ReconstructionQuality(**asdict(self.sparsity()), fvu=fvu, explained_variance=1 - fvu, cosine=cosine)

    def _add_scatter(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        """Merge a block's mean and squared distances into the running ones; call it before adding to `count`."""
        total = self.count + count
        moved = mean - self.mean
        self.scatter += scatter + moved.square().sum() * (self.count * count / total)
        self.mean += moved * (count / total)
