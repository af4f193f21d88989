"""An embedder of texts without weights: which words a text has, hashed. It is independent of every model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from mmmono.core.errors import ConfigError
from mmmono.interpretability.embedders import Embedder
from mmmono.interpretability.vocabulary import words_of

DIMENSIONS = 4096


class HashedWords(Embedder):
    """Texts are alike if they share words, whatever these mean: `cat` is like `black cat`, and unlike `kitten`.

    Counts of the words are hashed into 4,096 signed dimensions (Weinberger et al. 2009) and scaled to length 1. A text
    without a word is 0.
    """

    name = "words"
    fingerprint = f"hashed-words-{DIMENSIONS}"
    sees_images: ClassVar[bool] = False

    def embed_images(self, images: Sequence[Image]) -> Float[Tensor, "images image_dim"]:
        """Raise ConfigError: images have no words."""
        raise ConfigError("embedder=words embeds texts alone: choose embedder=offline or embedder=paper for images")

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts text_dim"]:
        """Hash the words of each text."""
        from sklearn.feature_extraction.text import HashingVectorizer

        hashing = HashingVectorizer(analyzer=words_of, n_features=DIMENSIONS)
        return torch.from_numpy(hashing.transform(list(texts)).toarray()).float()


def hashed_words(device: str = "cpu") -> HashedWords:
    """Make the embedder; it needs no device."""
    return HashedWords()
