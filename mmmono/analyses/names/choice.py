"""Choose each feature's name among its nearest words: the one that detects it best on the pairs that names are chosen by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from scipy.stats import rankdata
from torch import Tensor

from mmmono.analyses.names import Settings
from mmmono.analyses.names.words import Directions
from mmmono.features import MODALITIES, Modality
from mmmono.interpretability.detection import auroc_of_ranks
from mmmono.interpretability.naming import distinct_words, mean_directions, nearest_words, without_gap, word_cosines

LEAST_ACTIVE = 5  # samples of a modality that activate a feature, for a direction among them
NEAREST = 5  # words that are listed beside a name
NEARER = 1e-6  # by which a nearer word wins among words that detect a feature equally well


@dataclass(frozen=True)
class Likeness:
    """How alike the captions of some pairs are to the words of a vocabulary.

    Attributes:
        rows: the pairs that have a caption.
        words: embeddings of the words.
        captions: embeddings of these pairs' captions, by the same embedder.
    """

    rows: Int[np.ndarray[Any, Any], " captions"]
    words: Float[Tensor, "words dim"]
    captions: Float[Tensor, "captions dim"]

    def of(self, words: Int64[Tensor, " chosen"]) -> Float[Tensor, "chosen captions"]:
        """Likeness of every caption to some of the words."""
        return self.words[words] @ self.captions.T


@dataclass(frozen=True)
class FeatureNames:
    """Cosine of every feature's direction with every word's, by modality."""

    cosines: dict[Modality, Float[Tensor, "features words"]]

    @classmethod
    def of(
        cls,
        active: dict[Modality, Bool[Tensor, "pairs features"]],
        embeddings: dict[Modality, Float[Tensor, "pairs dim"]],
        atoms: Float[Tensor, "features dim"] | None,
        words: Directions,
    ) -> FeatureNames:
        """Compare features with words.

        Args:
            active: which samples activate which features.
            embeddings: of the same samples.
            atoms: directions of the features; None to take those of the samples that activate them.
            words: directions of the words.
        """
        means = [embeddings[m].mean(0) for m in MODALITIES]
        lie = {
            m: mean_directions(active[m], embeddings[m], LEAST_ACTIVE) if atoms is None else without_gap(atoms, *means)
            for m in MODALITIES
        }
        return cls({m: word_cosines(lie[m], words[m]) for m in MODALITIES})

    def of_classes(self, classes: Sequence[str]) -> Float[Tensor, "features words"]:
        """Cosines on the side of each feature's class; mean of both for CrossD, −∞ for dead features."""
        return by_class(classes, self.cosines["image"], self.cosines["text"], -torch.inf)


@dataclass(frozen=True)
class Chosen:
    """Names of a feature set.

    Attributes:
        word: index of each feature's name in the vocabulary; −1 if it has none.
        nearest: indices of the nearest words by modality, nearest first, padded with −1.
    """

    word: Int64[Tensor, " features"]
    nearest: dict[Modality, Int64[Tensor, "features nearest"]]


def choose_names(
    settings: Settings,
    classes: Sequence[str],
    names: FeatureNames,
    active: dict[Modality, Bool[Tensor, "pairs features"]],
    likeness: dict[Modality, Likeness],
) -> Chosen:
    """Choose each feature's name among its `names.candidates` nearest words on the side of its class."""
    cosines = names.of_classes(classes)
    candidates = nearest_words(cosines, settings.candidates)
    used = candidates[candidates >= 0].unique()
    scores = torch.full_like(cosines, -torch.inf)
    if len(used):
        image, text = (_auroc(active[m], likeness[m], used) for m in MODALITIES)
        detected = by_class(classes, image, text, -torch.inf)
        wide = torch.full_like(cosines, -torch.inf)
        wide[:, used] = detected.float()
        order = torch.arange(candidates.shape[1]) * NEARER
        own = (wide.gather(1, candidates.clamp_min(0)) - order).masked_fill(candidates < 0, -torch.inf)
        # Padding points at the first word, which may be a candidate itself: only what is no padding is written.
        feature, place = (candidates >= 0).nonzero(as_tuple=True)
        scores[feature, candidates[feature, place]] = own[feature, place]
    if settings.unique:
        word = distinct_words(scores)
    else:
        word = torch.where(scores.isinf().all(1), -1, scores.argmax(1))
    return Chosen(word, {m: nearest_words(names.cosines[m], NEAREST) for m in MODALITIES})


def by_class(
    classes: Sequence[str], image: Float[Tensor, "features n"], text: Float[Tensor, "features n"], dead: float
) -> Float[Tensor, "features n"]:
    """Take each feature's row on the side of its class; where one side of CrossD is −∞, the other one."""
    of = np.array(classes)
    both = torch.where(image.isinf(), text, torch.where(text.isinf(), image, (image + text) / 2))
    found = torch.where(torch.from_numpy(of == "TextD")[:, None], text, both)
    found = torch.where(torch.from_numpy(of == "ImgD")[:, None], image, found)
    return found.masked_fill(torch.from_numpy(of == "dead")[:, None], dead)


def _auroc(
    active: Bool[Tensor, "pairs features"], likeness: Likeness, words: Int64[Tensor, " words"]
) -> Float[Tensor, "features words"]:
    """AUROC of words for features; ½ for features that all or none of the samples activate."""
    ranks = rankdata(likeness.of(words).double().numpy(), axis=1)
    return auroc_of_ranks(ranks, active[likeness.rows]).nan_to_num(0.5)
