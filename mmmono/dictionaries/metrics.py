"""Reconstruction and sparsity metrics of dictionaries, computed over whole data sets, not averaged over batches."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.core.finite import check_finite, check_tensor, double, unit_rows
from mmmono.core.ranges import check_whole
from mmmono.core.streams import Stream
from mmmono.dictionaries.parallel import any_over_processes, sum_over_processes

CHUNK_ROWS = 256  # a chunk in float64 fits into a core's L2 cache


def fraction_of_variance_unexplained(
    x: Float[Tensor, "samples dim"], reconstruction: Float[Tensor, "samples dim"]
) -> Float[Tensor, ""]:
    """FVU = Σ‖x − x̂‖² / Σ‖x − mean(x)‖², with sums over all samples and the mean of each dimension, in float64.

    0 is a perfect reconstruction, 1 is as good as the mean, NaN if x is constant. Explained variance is 1 − FVU.

    Raises:
        NonFiniteError: a sample or reconstruction is NaN or infinite.
        ValueError: there is not one reconstruction of the same width for each sample.
    """
    _check_shapes(x, reconstruction)
    check_finite(x, "sample", column="dimension")
    check_finite(reconstruction, "reconstruction", column="dimension")
    x, reconstruction = x.double(), reconstruction.double()
    deviation = x - x[:1]  # exactly 0 if x is constant, and so is its mean
    variance = (deviation - deviation.mean(0)).square().sum()
    return torch.where(variance > 0, (x - reconstruction).square().sum() / variance, torch.nan)


def _check_shapes(x: Tensor, reconstruction: Tensor) -> None:
    for values, name in ((x, "sample"), (reconstruction, "reconstruction")):
        check_tensor(values, name)
    if x.shape != reconstruction.shape or x.ndim != 2:
        raise ValueError(
            f"samples {tuple(x.shape)} and reconstructions {tuple(reconstruction.shape)} must both be [samples, dim]"
        )


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


class SparsityMoments(Stream[[Tensor], Sparsity]):
    """Running sparsity of one modality's codes; without samples, all metrics but `active` (0) are NaN.

    Args:
        num_features: number of features.
        device: device of the codes.
    """

    def __init__(self, num_features: int, device: torch.device | str = "cpu") -> None:
        check_whole("num_features", num_features)
        self.count = 0
        self._fired = torch.zeros(num_features, dtype=torch.bool, device=device)
        self._active = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, codes: Float[Tensor, "samples features"]) -> None:
        """Add the codes of a block of samples. Raises NonFiniteError if a code is NaN or infinite."""
        check_finite(codes, "sample", self.count)
        active = codes != 0
        self._fired |= active.any(0)
        self._active += active.sum()
        self.count += len(codes)

    def merge(self, other: Self) -> None:
        """Add the samples of another stream, exactly; see `Stream.merge`."""
        self._fired |= other._fired.to(self._fired.device)
        self._active += other._active.to(self._active.device)
        self.count += other.count

    def merge_processes(self) -> None:
        """Merge the streams of all processes of a distributed training; each process then holds the total."""
        self._fired = any_over_processes(self._fired)
        self._active = sum_over_processes(self._active)
        self.count = int(sum_over_processes(torch.tensor(self.count, device=self._active.device)))

    def result(self) -> Sparsity:
        """Sparsity on all samples added so far."""
        fired = int(self._fired.sum())
        if not self.count:
            return Sparsity(l0=float("nan"), active=0, dead_fraction=float("nan"))
        return Sparsity(l0=int(self._active) / self.count, active=fired, dead_fraction=1 - fired / len(self._fired))


class ReconstructionMoments(Stream[[Tensor, Tensor, Tensor], ReconstructionQuality]):
    """Running sparsity and reconstruction quality of one modality.

    Sums are float64. The variance is the sum of squared distances from the running mean (Chan et al. 1979), which stays
    accurate if the mean is far from zero. Without samples, all metrics but `active` (0) are NaN.

    Args:
        dim: width of the embeddings.
        num_features: number of features.
        device: device of the embeddings and codes.
    """

    def __init__(self, dim: int, num_features: int, device: torch.device | str = "cpu") -> None:
        check_whole("dim", dim)
        self._sparsity = SparsityMoments(num_features, device)
        self._mean = torch.zeros(dim, dtype=torch.float64, device=device)
        self._scatter, self._error, self._cosine = (
            torch.zeros((), dtype=torch.float64, device=device) for _ in range(3)
        )

    def add(
        self,
        x: Float[Tensor, "samples dim"],
        reconstruction: Float[Tensor, "samples dim"],
        codes: Float[Tensor, "samples features"],
    ) -> None:
        """Add a block of samples with their reconstructions and codes.

        Raises:
            NonFiniteError: a sample, reconstruction or code is NaN or infinite.
            ValueError: samples and reconstructions differ in shape, or there are more or fewer codes.
        """
        _check_shapes(x, reconstruction)
        for rows in zip(x.split(CHUNK_ROWS), reconstruction.split(CHUNK_ROWS), codes.split(CHUNK_ROWS), strict=True):
            self._add_chunk(*rows)

    def _add_chunk(self, x: Tensor, reconstruction: Tensor, codes: Tensor) -> None:
        if not len(x):
            return
        for values, name in ((x, "sample"), (reconstruction, "reconstruction")):
            check_finite(values, name, self._sparsity.count, "dimension")
        x, reconstruction = double(x), double(reconstruction)
        deviation = x - x[:1]  # exactly 0 if x is constant, and so is its mean
        mean = deviation.mean(0)
        self._add_scatter(len(x), x[0] + mean, (deviation - mean).square().sum())
        self._error += (x - reconstruction).square().sum()
        self._cosine += torch.linalg.vecdot(unit_rows(x), unit_rows(reconstruction)).sum()
        self._sparsity.add(codes)

    def merge(self, other: Self) -> None:
        """Add the samples of another stream; see `Stream.merge`."""
        if not other._sparsity.count:
            return
        mean, scatter, error, cosine = (
            x.to(self._mean.device) for x in (other._mean, other._scatter, other._error, other._cosine)
        )
        self._add_scatter(other._sparsity.count, mean, scatter)
        self._error += error
        self._cosine += cosine
        self._sparsity.merge(other._sparsity)

    def merge_processes(self) -> None:
        """Merge the streams of all processes of a distributed training; each process then holds the total."""
        count = self._sparsity.count
        self._sparsity.merge_processes()
        self._error, self._cosine = map(sum_over_processes, (self._error, self._cosine))
        mean = sum_over_processes(self._mean * count) / max(1, self._sparsity.count)
        self._scatter = sum_over_processes(self._scatter + count * (self._mean - mean).square().sum())
        self._mean = mean

    def result(self) -> ReconstructionQuality:
        """Reconstruction quality and sparsity on all samples added so far."""
        count = self._sparsity.count
        rounding = 1e-28 * count * float(self._mean.square().sum())  # of the scatter if the true variance is 0
        fvu = float(self._error / self._scatter) if float(self._scatter) > rounding else float("nan")
        cosine = float(self._cosine) / count if count else float("nan")
        return ReconstructionQuality(
            **asdict(self._sparsity.result()), fvu=fvu, explained_variance=1 - fvu, cosine=cosine
        )

    def _add_scatter(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        """Merge other samples' mean and squared distances into the running ones, before they are counted."""
        before = self._sparsity.count
        total = before + count
        moved = mean - self._mean
        self._scatter += scatter + moved.square().sum() * (before * count / total)
        self._mean += moved * (count / total)
