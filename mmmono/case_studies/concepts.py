"""Concept pairs, such as female and male, and how a sample gets its label."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from PIL.Image import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForImageClassification

from mmmono.core.errors import ConfigError, ModelError
from mmmono.core.fingerprints import weights_identity
from mmmono.vlm.hub import hub_or_cache, hub_reason

Array = np.ndarray[Any, Any]


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
        ambiguous: how many samples match both concepts, and were left out.
    """

    a: Bool[Array, " samples"]
    b: Bool[Array, " samples"]
    confidence: Float[Array, " samples"]
    ambiguous: int


class Labeler(ABC):
    """Says which samples show which concept of a pair."""

    @abstractmethod
    def identity(self) -> str:
        """What determines the labels, for recipes."""

    @abstractmethod
    def label(
        self, pair: ConceptPair, metadata: pd.DataFrame, images: Callable[[Sequence[int]], Iterator[Image]]
    ) -> ConceptLabels:
        """Label every row.

        Args:
            pair: the concepts.
            metadata: one row a sample, with `caption` and label columns.
            images: yields the images of rows, in the order given.

        Raises:
            ConfigError: the concepts cannot be labeled this way.
        """


class CaptionWords(Labeler):
    """By the words of the caption; captions that name both concepts are left out."""

    def identity(self) -> str:
        """Nothing but the words, which the concept pair has."""
        return "words"

    def label(
        self, pair: ConceptPair, metadata: pd.DataFrame, images: Callable[[Sequence[int]], Iterator[Image]]
    ) -> ConceptLabels:
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

    def label(
        self, pair: ConceptPair, metadata: pd.DataFrame, images: Callable[[Sequence[int]], Iterator[Image]]
    ) -> ConceptLabels:
        """Samples whose label names one concept."""
        if self.column not in metadata:
            raise ConfigError(f"labels.column={self.column} is no column of the pairs: choose one of {list(metadata)}")
        found = np.array([pair.matches(str(value)) for value in metadata[self.column]]).reshape(-1, 2)
        return _exclusive(found[:, 0], found[:, 1], np.ones(len(metadata)))


class ImageClassifier(Labeler):
    """By an image classifier of transformers; its labels that hold a concept's words add up to the concept.

    Args:
        model: hub id or local folder.
        device: where to compute.
        batch_size: images a forward pass.

    Raises:
        ModelError: the model cannot be had.
    """

    def __init__(self, model: str, device: str = "cpu", batch_size: int = 32) -> None:
        self.model = model
        self._device = device
        self._batch_size = batch_size

    def identity(self) -> str:
        """The model's name, or the content of its folder."""
        return f"classifier {weights_identity(self.model)}"

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        try:
            with hub_or_cache():
                processor = AutoImageProcessor.from_pretrained(self.model)
                model = AutoModelForImageClassification.from_pretrained(self.model)
        except Exception as error:  # transformers passes on whatever the hub's client raises
            raise ModelError(
                f"labels.model={self.model} cannot be had ({hub_reason(error)}): check its name and the "
                "network, give a local folder, or use labels=words"
            ) from error
        return processor, model.eval().requires_grad_(False).to(self._device)

    def label(
        self, pair: ConceptPair, metadata: pd.DataFrame, images: Callable[[Sequence[int]], Iterator[Image]]
    ) -> ConceptLabels:
        """The likelier concept of every image, where either is likelier than anything else together."""
        processor, model = self._loaded
        names = [str(model.config.id2label[i]) for i in range(model.config.num_labels)]
        found = np.array([pair.matches(name) for name in names]).reshape(-1, 2)
        for concept, members in ((pair.a, found[:, 0]), (pair.b, found[:, 1])):
            if not members.any():
                raise ConfigError(
                    f"labels.model={self.model} has no label for {concept!r}: it knows {', '.join(names)}; name the "
                    "words of the one that is meant in concept.words_a or concept.words_b"
                )
        both = found.all(1)
        a, b = (torch.from_numpy(members & ~both) for members in found.T)
        shares: list[Tensor] = []
        batch: list[Image] = []
        with torch.inference_mode():
            for image in images(range(len(metadata))):
                batch.append(image.convert("RGB"))
                if len(batch) == self._batch_size:
                    shares.append(self._probabilities(processor, model, batch))
                    batch = []
            if batch:
                shares.append(self._probabilities(processor, model, batch))
        probability = torch.cat(shares)
        p_a, p_b = probability[:, a].sum(1).numpy(), probability[:, b].sum(1).numpy()
        confidence = np.maximum(p_a, p_b)
        sure = confidence > 0.5
        return ConceptLabels(sure & (p_a > p_b), sure & (p_b > p_a), confidence, ambiguous=int((~sure).sum()))

    def _probabilities(self, processor: Any, model: Any, images: list[Image]) -> Tensor:
        inputs = processor(images=images, return_tensors="pt").to(self._device)
        return model(**inputs).logits.softmax(-1).float().cpu()


def tokens(text: str) -> list[str]:
    """Lower-case words; names such as AdultFemale or adult_female are taken apart."""
    return re.findall(r"[a-z]+(?:'[a-z]+)?", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower())


def _exclusive(a: Array, b: Array, confidence: Array) -> ConceptLabels:
    both = a & b
    return ConceptLabels(a & ~both, b & ~both, confidence, ambiguous=int(both.sum()))
