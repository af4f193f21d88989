"""Random sets of features to compare a class with: they have the same size, and similar activity.

Features of a class may carry far more or far less of the activations than random features do. Removing the class is then
another intervention than removing as many random ones, whatever the class holds. A fair random set is matched to the
class in energy, or in how often its features are active, on the side that is intervened. If there is none, the closest
set is used, and its mismatch says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from torch import Tensor

from mmmono.core.finite import check_finite, double
from mmmono.core.streams import Stream
from mmmono.modality.partition import FeatureClass, Partition

Array = np.ndarray[Any, Any]
Match = Literal["energy", "frequency", "size"]
RANDOM = "Random"  # name of random sets in tables
TOLERANCE = 0.01  # a set whose activity differs from the class' by a smaller part is taken
UNIT = 0.01  # by how much atoms of unit length differ from it through rounding at most, in bfloat16
STARTS = 8  # random sets to start from
SWAPS = 200  # most swaps from each start


def check_match(match: str) -> None:
    """Raise ValueError if `match` names no way to match random sets."""
    if match not in get_args(Match):
        raise ValueError(f"random_sets={match} is none of {', '.join(get_args(Match))}")


def random_name(match: Match, like: str) -> str:
    """Name of the random sets for a class: `Random`, or `Random-<class>` if they are matched to that class."""
    return RANDOM if match == "size" else f"{RANDOM}-{like}"


@dataclass(frozen=True)
class Activity:
    """How active each feature is on one side, images or texts.

    Attributes:
        energy: Σ z² of each feature over the samples, divided by the sum over all features; 0 if all activations are 0.
            With atoms, see `through`, Σ ‖z · atom‖².
        frequency: share of the samples that activate each feature, z ≠ 0.
    """

    energy: Float[Array, " features"]
    frequency: Float[Array, " features"]

    @classmethod
    def of(cls, blocks: Iterable[Float[Tensor, "samples features"]]) -> Activity:
        """Measure the activity over blocks of activations, in one pass.

        Raises:
            NonFiniteError: an activation is NaN or infinite.
            ValueError: there is no block.
        """
        stream = ActivityStream()
        for block in blocks:
            stream.add(block)
        return stream.result()

    @classmethod
    def of_sparse(cls, activations: csr_array) -> Activity:
        """Measure the activity of a matrix `[samples, features]` of which only what is not 0 is kept."""
        values, count = activations.data.astype(np.float64), activations.shape[1]
        energy = np.bincount(activations.indices, np.square(values), count)
        active = np.bincount(activations.indices[values != 0], minlength=count)
        return cls(energy / (energy.sum() or 1), active / max(1, activations.shape[0]))

    def weights(self, match: Match) -> Float[Array, " features"]:
        """What random sets are matched in, feature by feature; 1 for each if only their size is.

        Raises:
            ValueError: `match` is unknown.
        """
        check_match(match)
        if match == "size":
            return np.ones_like(self.energy)
        return self.energy if match == "energy" else self.frequency

    def through(self, atoms: Float[Tensor, "features dim"] | None) -> Activity:
        """Return the activity with the energy of what features add to vectors, whatever scale their codes have.

        Args:
            atoms: what a code of 1 adds to a vector; None if the codes are the vectors.
        """
        lengths = None if atoms is None else torch.linalg.vector_norm(double(atoms), dim=1).cpu().numpy()
        if lengths is None or np.all(np.abs(lengths - 1) < UNIT):
            return self
        energy = self.energy * np.square(lengths)
        return Activity(energy / (energy.sum() or 1), self.frequency)

    def share(self, members: Int[Array, " members"]) -> float:
        """Share of the energy that some features carry."""
        return float(self.energy[members].sum())

    def __add__(self, other: Activity) -> Activity:
        """Mean activity of two sides."""
        return Activity((self.energy + other.energy) / 2, (self.frequency + other.frequency) / 2)


class ActivityStream(Stream[[Tensor], Activity]):
    """Running activity of each feature, for callers that compute several things in one pass; see `Activity`."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None  # float64 [2, features]: Σ z², number of active samples
        self._samples = 0

    def add(self, block: Float[Tensor, "samples features"]) -> None:
        """Add a block of activations. Raises NonFiniteError if one is NaN or infinite."""
        check_finite(block, "sample", self._samples)
        sums = torch.stack([double(block).square().sum(0), (block != 0).sum(0).double()]).cpu()
        self._sums = sums if self._sums is None else self._sums + sums
        self._samples += len(block)

    def merge(self, other: Self) -> None:
        """Add the samples of another stream; see `Stream.merge`."""
        if other._sums is not None:
            self._sums = other._sums if self._sums is None else self._sums + other._sums
            self._samples += other._samples

    def result(self) -> Activity:
        """Return the activity over all samples added so far. Raises ValueError if no block was added."""
        if self._sums is None:
            raise ValueError("no activations to measure")
        energy, active = self._sums.numpy()
        return Activity(energy / (energy.sum() or 1), active / max(1, self._samples))


def random_pool(partition: Partition, of: FeatureClass, size: int, match: Match) -> Int[Array, " pool"]:
    """Features that random sets for a class are drawn from.

    These are the live features outside the class: a set as energetic as a class that holds the most energetic features
    would else be the class itself. All live features are used if fewer than `size` are outside, or if only the size is to
    be matched, as in the paper. If none is outside, the pool is empty: whatever is drawn is the class or a part of it, with
    which it would seem to agree.

    Args:
        partition: partition of the features.
        of: the class.
        size: number of features in a set.
        match: what random sets have in common with the class.
    """
    outside = np.setdiff1d(partition.live.numpy(), partition[of].numpy())
    return partition.live.numpy() if len(outside) and (match == "size" or len(outside) < size) else outside


@dataclass(frozen=True)
class RandomSet:
    """A random set of features.

    Attributes:
        members: indices of its features, ascending.
        mismatch: |weight of the set − weight of the class| / weight of the class; 0 if only the size is matched. It is large
            where no fair set was found, for example because the class holds the one feature with most of the energy.
    """

    members: Int[Array, " members"]
    mismatch: float


def random_set(
    pool: Int[Array, " pool"],
    like: Int[Array, " members"],
    weights: Float[Array, " features"],
    rng: np.random.Generator,
) -> RandomSet:
    """Draw as many features as a class has, without replacement, with about the same sum of weights.

    Starts from a simple random set. While the sums differ by more than 1 %, a random member is exchanged for a random
    feature outside, among the exchanges that bring the sums closer. If no start leads to a match, the closest set is
    returned with its mismatch. With equal weights it is a simple random set.

    Args:
        pool: features to draw from, at least as many as the class has; see `random_pool`.
        like: features of the class.
        weights: weight of each feature of the set, at least 0; see `Activity.weights`.
        rng: random generator.

    Raises:
        ValueError: the pool is smaller than the class, or a weight is negative or not finite.
    """
    if len(pool) < len(like):
        raise ValueError(f"{len(like)} random features cannot be drawn from {len(pool)}: the pool is too small")
    if not np.isfinite(weights).all() or (len(weights) and weights.min() < 0):
        raise ValueError("weights of features must be finite and at least 0")
    target = float(weights[like].sum())
    best: RandomSet | None = None
    for _ in range(STARTS):
        found = _matched(rng.permutation(pool), len(like), weights, target, rng)
        if best is None or found.mismatch < best.mismatch:
            best = found
        if best.mismatch <= TOLERANCE:
            break
    assert best is not None
    return best


def _matched(order: Array, size: int, weights: Array, target: float, rng: np.random.Generator) -> RandomSet:
    """Exchange features of a random set, the first `size` of `order`, until its weight is about the target."""
    order = order.copy()
    inside, outside = order[:size], order[size:]
    of_inside, of_outside = weights[inside], weights[outside]
    gap = target - float(of_inside.sum())
    scale = target if target > 0 else 1.0
    for _ in range(SWAPS):
        if abs(gap) <= TOLERANCE * scale or not size or not len(outside):
            break
        for place in rng.permutation(size):
            gains = of_outside - of_inside[place]
            closer = np.flatnonzero(np.abs(gap - gains) < abs(gap))
            if len(closer):
                break
        else:
            break  # no exchange brings it closer
        other = rng.choice(closer)
        for own, others in ((inside, outside), (of_inside, of_outside)):
            own[place], others[other] = others[other], own[place]
        gap -= gains[other]
    return RandomSet(np.sort(inside), abs(gap) / scale)
