"""Averages of groups of pairs, for streams in which a group, not a pair, is the unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from mmmono.features.grouping import GroupNumbers
from mmmono.modality.groups import OpenGroups, WholeGroups, group_sizes


@dataclass(frozen=True)
class Units:
    """Groups of pairs whose pairs have all been seen; a pair that is a group of its own is one, too.

    Attributes:
        image, text: mean activations of each group, in float64.
        image_fires, text_fires: whether any activation of the group is not 0.
        pairs: number of pairs of each group.
    """

    image: Float[Tensor, "groups features"]
    text: Float[Tensor, "groups features"]
    image_fires: Bool[Tensor, "groups features"]
    text_fires: Bool[Tensor, "groups features"]
    pairs: GroupNumbers

    def chosen(self, members: np.ndarray[Any, np.dtype[np.bool_]]) -> Units:
        """Return some of the groups."""
        if members.all():
            return self
        rows = torch.from_numpy(np.flatnonzero(members)).to(self.image.device)
        image, text, image_fires, text_fires = (
            x[rows] for x in (self.image, self.text, self.image_fires, self.text_fires)
        )
        return Units(image, text, image_fires, text_fires, self.pairs[members])


class GroupAverages:
    """Turns blocks of pairs into averages of groups, each given out when its last pair has been seen.

    Pairs of a group may lie apart and in different blocks. Memory: the sums of those groups that are incomplete.

    Args:
        groups: group of each of all pairs, as numbers from 0 on; None if every pair is a group of its own.
    """

    def __init__(self, groups: GroupNumbers | None) -> None:
        self._sizes = None if groups is None else group_sizes(groups)
        if self._sizes is not None and len(self._sizes) and self._sizes.max() == 1:
            self._sizes = None
        self._open = OpenGroups(self._sizes)

    @property
    def sizes(self) -> GroupNumbers | None:
        """Number of pairs of each group; None if every pair is a group of its own."""
        return self._sizes

    def whole(self, pairs: int, codes: GroupNumbers | None) -> WholeGroups:
        """Return the groups of a block that have all their pairs in it; they need not be added. Errors: see `add`."""
        if (known := self._known(pairs, codes)) is None or self._sizes is None:
            return WholeGroups.single(pairs)
        return WholeGroups.of(known, self._sizes, self._open)

    def add(self, image: Tensor, text: Tensor, codes: GroupNumbers | None) -> list[Units]:
        """Add pairs with the codes of their groups, and return the groups that are complete with them.

        Raises:
            ValueError: there is not one code for each pair, or a code is unknown.
        """
        codes = self._known(len(image), codes)
        if codes is None or self._sizes is None:
            return [_single(image, text)]
        alone = torch.from_numpy(self._sizes[codes] == 1).to(image.device)
        complete = [_single(image[alone], text[alone])] if bool(alone.any()) else []
        if not bool(alone.all()):
            together = ~alone
            rows = _rows(image[together], text[together])
            complete += _units(self._open.add(codes[together.cpu().numpy()], rows))
        return complete

    def merge(self, other: GroupAverages) -> list[Units]:
        """Add what another one has seen, and return the groups that are complete with it.

        Raises:
            ValueError: the groups differ.
        """
        same = self._sizes is other._sizes
        if not same and not np.array_equal(self._sizes, other._sizes):  # type: ignore[arg-type]  # None equals None alone
            raise ValueError("streams with different groups cannot be merged: give all those of the whole data")
        return _units(self._open.merge(other._open))

    def _known(self, pairs: int, codes: GroupNumbers | None) -> GroupNumbers | None:
        """Check codes of pairs; return None if every pair is a group of its own."""
        if self._sizes is None:
            return None
        if codes is None or len(codes) != pairs:
            raise ValueError(
                f"{pairs} pairs with {0 if codes is None else len(codes)} codes of groups: give one code for each pair"
            )
        if len(codes) and not 0 <= codes.min() <= codes.max() < len(self._sizes):
            raise ValueError(f"groups have the codes 0 to {len(self._sizes) - 1}, not {codes.min()} or {codes.max()}")
        return codes

    def rest(self) -> list[Units]:
        """Averages of the incomplete groups over those of their pairs that have been seen; nothing is changed."""
        return _units(self._open.open())


def _single(image: Tensor, text: Tensor) -> Units:
    return Units(image.double(), text.double(), image != 0, text != 0, np.ones(len(image), np.int64))


def _rows(image: Tensor, text: Tensor) -> Float64[Tensor, "pairs n"]:
    """What is added up by group: activations of both sides, whether they are not 0, and the number of pairs."""
    ones = torch.ones(len(image), 1, device=image.device)
    return torch.cat([x.double() for x in (image, text, image != 0, text != 0, ones)], dim=1)


def _units(sums: Float64[Tensor, "groups n"] | None) -> list[Units]:
    if sums is None or not len(sums):
        return []
    pairs = sums[:, -1:]
    image, text, image_fires, text_fires = sums[:, :-1].chunk(4, dim=1)
    return [Units(image / pairs, text / pairs, image_fires > 0, text_fires > 0, pairs[:, 0].long().cpu().numpy())]
