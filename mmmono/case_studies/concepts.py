"""Concept pairs, such as female and male, and labelers that assign samples to them."""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from mmmono.core.errors import ConfigError
from mmmono.core.words import LETTERS

Array = np.ndarray[Any, Any]
WORD = re.compile(rf"\d+\.\d+|{LETTERS}(?:'{LETTERS})?")  # of any alphabet
SHOWN_VALUES = 8  # of a column, in messages
Classify = Callable[[Any], Float[Array, "samples classes"]]  # takes an `ImageClassifier`


@dataclass(frozen=True)
class ConceptPair:
    """Two mutually exclusive concepts.

    Attributes:
        a, b: names of the concepts.
        words_a, words_b: words that name each concept in captions, in values of a column and in class names, in lower case.

    Raises:
        ConfigError: a word can be none of those that a text is split into, such as a phrase.
    """

    a: str
    b: str
    words_a: Sequence[str]
    words_b: Sequence[str]

    def __post_init__(self) -> None:
        for name in ("words_a", "words_b"):
            for word in getattr(self, name):
                if (found := tokens(word)) != [word]:
                    instead = f", here {', '.join(found)}" if found else ""
                    raise ConfigError(
                        f"{name} has {word!r}, which no text has: give single words in lower case{instead}"
                    )

    def matches(self, text: str) -> tuple[bool, bool]:
        """Whether the text contains a word of concept A, and one of concept B; whole words, ignoring case."""
        words = set(tokens(text))
        return bool(words & set(self.words_a)), bool(words & set(self.words_b))


@dataclass(frozen=True)
class ConceptLabels:
    """Concept labels of samples.

    Attributes:
        a, b: masks of the samples of concept A and of concept B; disjoint.
        confidence: probability of the label; 1 if it comes from a caption or a label column.
        ambiguous: number of unlabeled samples that match both concepts or, with a classifier, neither with confidence.
        missing: number of unlabeled samples whose image is missing.
    """

    a: Bool[Array, " samples"]
    b: Bool[Array, " samples"]
    confidence: Float[Array, " samples"]
    ambiguous: int
    missing: int = 0

    def first_of_groups(self, groups: Int[Array, " samples"]) -> ConceptLabels:
        """Keep, of each group, the first sample of either concept.

        Variants of one image would be each other's nearest references; two with different concepts are what is compared.

        Args:
            groups: number of each sample's group.
        """
        return replace(self, a=_first(self.a, groups), b=_first(self.b, groups))


class Labeler(ABC):
    """Assign samples to the concepts of a pair.

    Attributes:
        sees_images: whether it looks at the images, which takes time: then it is asked about one pair of each group.
    """

    sees_images: ClassVar[bool] = False

    @abstractmethod
    def identity(self) -> str:
        """Everything that determines the labels, for the cache key of results."""

    def check(self, pair: ConceptPair) -> None:  # noqa: B027 - not every labeler needs a check
        """Check that the concepts can be labeled, before long computations start.

        Raises:
            ConfigError: the labeler cannot label these concepts.
            ModelError: a required model is not available.
        """

    def remedy(self, metadata: pd.DataFrame) -> str:
        """What to do if too few of these samples show a concept."""
        return (
            "give it more words in concept.words_a or concept.words_b, take it from a column of the dataset (labels=column "
            "labels.column=…), or give more pairs"
        )

    @abstractmethod
    def label(self, pair: ConceptPair, metadata: pd.DataFrame, classify: Classify) -> ConceptLabels:
        """Label every sample.

        Args:
            pair: the concepts.
            metadata: one row per sample, with `caption` and label columns.
            classify: returns a classifier's probabilities for the images of all rows; NaN if an image is missing.

        Raises:
            ConfigError: the labeler cannot label these concepts.
        """


class CaptionWords(Labeler):
    """Label samples by the words of their caption; captions that name both concepts are left out."""

    def identity(self) -> str:
        """A constant; the words belong to the concept pair."""
        return "words"

    def label(self, pair: ConceptPair, metadata: pd.DataFrame, classify: Classify) -> ConceptLabels:
        """Label samples whose caption contains words of exactly one concept."""
        found = np.array([pair.matches(caption) for caption in metadata["caption"]]).reshape(-1, 2)
        return _exclusive(found[:, 0], found[:, 1], np.ones(len(metadata)))


class LabelColumn(Labeler):
    """Label samples by a column of the metadata whose values contain a concept's words.

    Args:
        column: name of the column.
    """

    def __init__(self, column: str) -> None:
        self.column = column

    def identity(self) -> str:
        """The name of the column."""
        return f"column {self.column}"

    def remedy(self, metadata: pd.DataFrame) -> str:
        """Which values the column has."""
        values = metadata[self.column].astype(str)
        common = ", ".join(values[values != ""].value_counts().index[:SHOWN_VALUES]) or "none at all"
        return (
            f"labels.column={self.column} has values such as {common}: give words of them in concept.words_a and "
            "concept.words_b, or give more pairs"
        )

    def label(self, pair: ConceptPair, metadata: pd.DataFrame, classify: Classify) -> ConceptLabels:
        """Label samples whose value contains words of exactly one concept."""
        if self.column not in metadata:
            raise ConfigError(f"labels.column={self.column} is no column of the pairs: choose one of {list(metadata)}")
        found = np.array([pair.matches(str(value)) for value in metadata[self.column]]).reshape(-1, 2)
        return _exclusive(found[:, 0], found[:, 1], np.ones(len(metadata)))


def tokens(text: str) -> list[str]:
    """Split a text into lower-case words and numbers; also splits names such as AdultFemale or adult_female."""
    return WORD.findall(unicodedata.normalize("NFC", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)).lower())


def _first(members: Array, groups: Array) -> Array:
    """Mask of the first member of each group."""
    places = np.flatnonzero(members)
    kept = np.zeros_like(members)
    kept[places[np.unique(groups[places], return_index=True)[1]]] = True
    return kept


def _exclusive(a: Array, b: Array, confidence: Array) -> ConceptLabels:
    both = a & b
    return ConceptLabels(a & ~both, b & ~both, confidence, ambiguous=int(both.sum()))
