"""The options `partition=sigma`, `margin` and `counts`: rules that classify features by R(d)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmmono.modality import Partition, partition_by_counts, partition_by_margin, partition_by_sigma

NO_SCORES = torch.empty(0), torch.empty(0, dtype=torch.bool)  # classified to check settings before there are scores


@dataclass(frozen=True)
class PartitionRule(ABC):
    """A rule that classifies features by their modality dominance scores. Its settings are the fields of the dataclass."""

    name: ClassVar[str]

    @abstractmethod
    def __call__(self, scores: Float[Tensor, " features"], live: Bool[Tensor, " features"]) -> Partition:
        """Classify features.

        Args:
            scores: R(d); NaN marks dead features.
            live: mask of the features to classify; the others are dead.

        Raises:
            ValueError: the rule cannot classify these scores.
        """

    def recipe(self) -> dict[str, Any]:
        """Everything that determines the classes, given the scores."""
        return {"_rule": self.name, **asdict(self)}


@dataclass(frozen=True)
class SigmaRule(PartitionRule):
    """`partition=sigma`: see `partition_by_sigma`."""

    name = "sigma"
    n_sigma: float

    def __post_init__(self) -> None:
        self(*NO_SCORES)

    def __call__(self, scores: Float[Tensor, " features"], live: Bool[Tensor, " features"]) -> Partition:
        """Classify features; see `PartitionRule`."""
        return partition_by_sigma(scores, self.n_sigma, live)


@dataclass(frozen=True)
class MarginRule(PartitionRule):
    """`partition=margin`: see `partition_by_margin`."""

    name = "margin"
    margin: float

    def __post_init__(self) -> None:
        self(*NO_SCORES)

    def __call__(self, scores: Float[Tensor, " features"], live: Bool[Tensor, " features"]) -> Partition:
        """Classify features; see `PartitionRule`."""
        return partition_by_margin(scores, self.margin, live)


@dataclass(frozen=True)
class CountsRule(PartitionRule):
    """`partition=counts`: see `partition_by_counts`, which compares the sizes with the number of live features."""

    name = "counts"
    image_dominant: int
    text_dominant: int

    def __call__(self, scores: Float[Tensor, " features"], live: Bool[Tensor, " features"]) -> Partition:
        """Classify features; see `PartitionRule`."""
        return partition_by_counts(scores, self.image_dominant, self.text_dominant, live)
