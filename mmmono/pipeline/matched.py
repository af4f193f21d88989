"""The feature-set option `features=matched_saes`: one autoencoder a modality, matched when both are trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmmono.dictionaries import Dictionary
from mmmono.dictionaries.matched_saes import MatchedSAEs
from mmmono.dictionaries.pools import CHUNK_ROWS, RowReader
from mmmono.features import FeatureView
from mmmono.features.store import MODALITIES
from mmmono.modality.side_matching import match_sides
from mmmono.pipeline.feature_sets import SAE

PLACES = 64  # of the training pairs, at least, that pairs to match on come from


@dataclass
class Matched(SAE):
    """Two autoencoders that are trained together and apart, and whose latents are then matched."""

    architecture: str = MatchedSAEs.architecture

    @torch.no_grad()
    def finish(self, dictionary: Dictionary, train: FeatureView, normalize: bool) -> None:
        """Reorder the texts' latents by what they share with the images' on training pairs."""
        assert isinstance(dictionary, MatchedSAEs)
        dictionary.align(*match_sides(_codes(dictionary, train, normalize)))


def _codes(dictionary: MatchedSAEs, train: FeatureView, normalize: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Codes of both sides of up to `match_pairs` pairs, in blocks that are spread over all of them."""
    weight = dictionary.W_enc
    reader = RowReader(train, normalize, weight.device)
    rows = min(CHUNK_ROWS, max(2, dictionary.match_pairs // PLACES))
    starts = range(0, len(train), rows)
    count = min(len(starts), max(1, dictionary.match_pairs // rows))
    for number in np.linspace(0, len(starts) - 1, count).round().astype(int):
        start = starts[number]
        block = reader.read_pair(start, min(start + rows, len(train)))
        image, text = (dictionary.encode(z.to(weight.dtype), m) for z, m in zip(block, MODALITIES, strict=True))
        yield image, text
