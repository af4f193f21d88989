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
from mmmono.interpretability.text_likeness import TextVectors, likeness

LEAST_ACTIVE = 5  # samples of a modality that activate a feature, for a direction among them
NEAREST = 5  # words that are listed beside a name
NEARER = 1e-6  # by which a nearer word wins among words that detect a feature equally well


@dataclass(frozen=True)
class Likeness:
    """How alike the captions of some pairs are to the words of a vocabulary.

    Attributes:
        rows: the pairs that have a caption.
        words: vectors of the words.
        captions: vectors of these pairs' captions, that can be compared with those of the words.
    """

    rows: Int[np.ndarray[Any, Any], " captions"]
    words: TextVectors
    captions: TextVectors

    def of(self, words: Int64[Tensor, " chosen"]) -> Float[Tensor, "chosen captions"]:
        """Likeness of every caption to some of the words."""
        return likeness(self.words, words, self.captions)


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
        directions = {
            m: mean_directions(active[m], embeddings[m], LEAST_ACTIVE) if atoms is None else without_gap(atoms, *means)
            for m in MODALITIES
        }
        return cls({m: word_cosines(directions[m], words[m]) for m in MODALITIES})

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
    captions: dict[Modality, Likeness],
) -> Chosen:
    """Choose each feature's name among its `names.candidates` nearest words on the side of its class."""
    cosines = names.of_classes(classes)
    candidates = nearest_words(cosines, settings.candidates)
    used = candidates[candidates >= 0].unique()
    word = torch.full((len(cosines),), -1)
    if len(used):
        image, text = (_auroc(active[m], captions[m], used) for m in MODALITIES)
        detected = by_class(classes, image, text, -torch.inf)
        column = torch.searchsorted(used, candidates.clamp_min(int(used[0])))
        order = torch.arange(candidates.shape[1]) * NEARER
        own = (detected.float().gather(1, column) - order).masked_fill(candidates < 0, -torch.inf)
        if settings.unique:
            scores = torch.full_like(detected, -torch.inf, dtype=torch.float32)
            # Padding points at the first word, which may be a candidate itself: only what is no padding is written.
            feature, place = (candidates >= 0).nonzero(as_tuple=True)
            scores[feature, column[feature, place]] = own[feature, place]
            assigned = distinct_words(scores)
            word = torch.where(assigned >= 0, used[assigned.clamp_min(0)], -1)
        else:
            best = candidates.gather(1, own.argmax(1, keepdim=True)).squeeze(1)
            word = torch.where(own.isinf().all(1), -1, best)
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
    active: Bool[Tensor, "pairs features"], captions: Likeness, words: Int64[Tensor, " words"]
) -> Float[Tensor, "features words"]:
    """AUROC of words for features; ½ for features that all or none of the samples activate."""
    ranks = rankdata(captions.of(words).double().numpy(), axis=1)
    return auroc_of_ranks(ranks, active[captions.rows]).nan_to_num(0.5)
