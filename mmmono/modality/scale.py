"""How R(d) depends on the relative scale of the two modalities.

Eq. 1 divides by |z_img| + |z_txt|: its ratios change, pair by pair, if one modality's activations are multiplied by a
constant. Normalized embeddings have no such freedom; the codes of a dictionary do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mmmono.core.finite import single
from mmmono.core.streams import Stream, require_equal
from mmmono.features.rows import check_pairs
from mmmono.modality.dominance import DominanceStream
from mmmono.modality.groups import GroupsLike, group_sizes, grouped_blocks, numbered_groups
from mmmono.modality.scores import DominanceScores, Undefined

FACTORS = (0.8, 1.25)  # a fifth less, and its inverse


def scaled_scores(
    blocks: Iterable[tuple[Float[Tensor, "pairs features"], Float[Tensor, "pairs features"]]],
    factors: Sequence[float] = FACTORS,
    undefined: Undefined = "skip",
    groups: GroupsLike | None = None,
) -> dict[float, DominanceScores]:
    """Compute Eq. 1 with all image activations multiplied by each of several factors, in one pass.

    Args:
        blocks: activations of images and of texts; row i of both belongs to the same pair.
        factors: positive numbers.
        undefined: see `modality_dominance_score`.
        groups: the group of each pair; None: each is a group of its own.

    Returns:
        The scores by factor.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        ValueError: a factor is not positive, the shapes differ, there is no block, `undefined` is unknown, or there are
            more or fewer groups than pairs.
    """
    codes = None if groups is None else numbered_groups(groups)
    stream = ScaleStream(factors, undefined, None if codes is None else group_sizes(codes))
    for image, text, of_block in grouped_blocks(blocks, codes):
        stream.add(image, text, of_block)
    return stream.result()


class ScaleStream(Stream[[Tensor, Tensor], dict[float, DominanceScores]]):
    """Running scores with scaled image activations, for callers that compute several things in one pass.

    Args:
        factors, undefined: see `scaled_scores`.
        group_sizes: number of pairs of each group, see `DominanceStream`.

    Raises:
        ValueError: a factor is not positive, or `undefined` is unknown.
    """

    def __init__(
        self,
        factors: Sequence[float] = FACTORS,
        undefined: Undefined = "skip",
        group_sizes: np.ndarray | None = None,
    ) -> None:
        if wrong := [factor for factor in factors if not 0 < factor < float("inf")]:
            raise ValueError(f"factors={wrong[0]} must be a positive number: it multiplies the image activations")
        self._streams = {factor: DominanceStream(undefined, group_sizes) for factor in factors}

    def add(
        self,
        image: Float[Tensor, "pairs features"],
        text: Float[Tensor, "pairs features"],
        groups: GroupsLike | None = None,
    ) -> None:
        """Add a block of pairs; row i of both sides belongs to the same pair, see `DominanceStream.add`."""
        check_pairs(image, text)
        for factor, stream in self._streams.items():
            stream.add(single(image) * factor, text, groups)  # in half precision the product would be rounded

    def shared(self) -> tuple[object, ...]:
        """Return the sizes of all groups; see `Stream.shared`."""
        return tuple(part for stream in self._streams.values() for part in stream.shared())

    def merge(self, other: Self) -> None:
        """Add the pairs of another stream; see `Stream.merge`."""
        require_equal("factors", list(self._streams), list(other._streams))
        for factor, stream in self._streams.items():
            stream.merge(other._streams[factor])

    def result(self) -> dict[float, DominanceScores]:
        """Return the scores by factor over all pairs so far. Raises ValueError if no block was added."""
        return {factor: stream.result() for factor, stream in self._streams.items()}
