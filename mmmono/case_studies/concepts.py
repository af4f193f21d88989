"""Concept pairs, such as female and male, and how a sample gets its label."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from mmmono.core.errors import ConfigError

if TYPE_CHECKING:
    from mmmono.case_studies.classifier import ImageClassifier

Array = np.ndarray[Any, Any]
Classify = Callable[["ImageClassifier"], Float[Array, "samples classes"]]


@dataclass(frozen=True)
class ConceptPair:
    """Two concepts that exclude each other.

    Attributes:
        a, b: their names.
        words_a, words_b: words that name them in captions and in a classifier's labels.
    """

    a: str
    b: str
    words_a: tuple[str, ...]
    words_b: tuple[str, ...]

    def matches(self, text: str) -> tuple[bool, bool]:
        """Whether the text holds a word of concept A, and one of concept B; whole words, whatever their case."""
        words = set(tokens(text))
        return bool(words & set(self.words_a)), bool(words & set(self.words_b))


@dataclass(frozen=True)
class ConceptLabels:
    """Which samples show which concept.

    Attributes:
        a, b: samples of concept A and of concept B; no sample is in both.
        confidence: how sure the label is; 1 where it is given, not estimated.
        ambiguous: how many samples match both concepts, or neither for certain, and were left out.
        missing: how many samples could not be looked at, and were left out.
    """

    a: Bool[Array, " samples"]
    b: Bool[Array, " samples"]
    confidence: Float[Array, " samples"]
    ambiguous: int
    missing: int = 0


class Labeler(ABC):
    """Says which samples show which concept of a pair."""

    @abstractmethod
    def identity(self) -> str:
        """What determines the labels, for recipes."""

    def check(self, pair: ConceptPair) -> None:  # noqa: B027 - some need nothing that could be lacking
        """Look whether the concepts can be labeled at all, before anything heavy is done.

        Raises:
            ConfigError: they cannot be labeled this way.
            ModelError: a model that is needed cannot be had.
        """

    @abstractmethod
    def label(self, pair: ConceptPair, metadata: pd.DataFrame, classify: Classify) -> ConceptLabels:
        """Label every row.

        Args:
            pair: the concepts.
            metadata: one row a sample, with `caption` and label columns.
            classify: gives a classifier's probabilities for the images of all rows, NaN where an image is missing.

        Raises:
            ConfigError: the concepts cannot be labeled this way.
        """


class CaptionWords(Labeler):
    """By the words of the caption; captions that name both concepts are left out."""

    def identity(self) -> str:
        """Nothing but the words, which the concept pair has."""
        return "words"

    def label(self, pair: ConceptPair, metadata: pd.DataFrame, classify: Classify) -> ConceptLabels:
        """Samples whose caption has a word of one concept and none of the other."""
        found = np.array([pair.matches(caption) for caption in metadata["caption"]]).reshape(-1, 2)
        return _exclusive(found[:, 0], found[:, 1], np.ones(len(metadata)))


class LabelColumn(Labeler):
    """By a label of the dataset whose values hold a word of one concept.

    Args:
        column: of the metadata.
    """

    def __init__(self, column: str) -> None:
        self.column = column

    def identity(self) -> str:
        """The column."""
        return f"column {self.column}"

    def label(self, pair: ConceptPair, metadata: pd.DataFrame, classify: Classify) -> ConceptLabels:
        """Samples whose label names one concept."""
        if self.column not in metadata:
            raise ConfigError(f"labels.column={self.column} is no column of the pairs: choose one of {list(metadata)}")
        found = np.array([pair.matches(str(value)) for value in metadata[self.column]]).reshape(-1, 2)
        return _exclusive(found[:, 0], found[:, 1], np.ones(len(metadata)))


def tokens(text: str) -> list[str]:
    """Lower-case words; names such as AdultFemale or adult_female are taken apart."""
    return re.findall(r"[a-z]+(?:'[a-z]+)?", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower())


def _exclusive(a: Array, b: Array, confidence: Array) -> ConceptLabels:
    both = a & b
    return ConceptLabels(a & ~both, b & ~both, confidence, ambiguous=int(both.sum()))
