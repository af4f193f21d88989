"""Averages of groups of pairs, for streams in which a group, not a pair, is the unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmmono.core.streams import require_equal
from mmmono.features.grouping import Codes


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
    pairs: Codes

    def chosen(self, members: np.ndarray[Any, np.dtype[np.bool_]]) -> Units:
        """Return some of the groups."""
        if members.all():
            return self
        rows = torch.from_numpy(np.flatnonzero(members)).to(self.image.device)
        image, text, image_fires, text_fires = (
            x[rows] for x in (self.image, self.text, self.image_fires, self.text_fires)
        )
        return Units(image, text, image_fires, text_fires, self.pairs[members])


@dataclass
class _Open:
    """A group of which some pairs are still to come: sums [2, features], whether it fires [2, features], pairs seen."""

    total: Tensor
    fires: Tensor
    seen: int

    def plus(self, other: _Open) -> _Open:
        device = self.total.device
        total, fires = self.total + other.total.to(device), self.fires | other.fires.to(device)
        return _Open(total, fires, self.seen + other.seen)


class GroupAverages:
    """Turns blocks of pairs into averages of groups, each given out when its last pair has been seen.

    Pairs of a group may lie apart and in different blocks. Memory: the sums of those groups that are incomplete.

    Args:
        groups: group of each of all pairs, as numbers from 0 on; None if every pair is a group of its own.
    """

    def __init__(self, groups: Codes | None) -> None:
        self._sizes = None if groups is None else np.bincount(groups)
        if self._sizes is not None and len(self._sizes) and self._sizes.max() == 1:
            self._sizes = None
        self._open: dict[int, _Open] = {}

    def add(self, image: Tensor, text: Tensor, codes: Codes | None) -> list[Units]:
        """Add pairs with the codes of their groups, and return the groups that are complete with them.

        Raises:
            ValueError: there is not one code for each pair, or a code is unknown.
        """
        if self._sizes is None:
            return [_single(image, text)]
        if codes is None or len(codes) != len(image):
            raise ValueError(
                f"{len(image)} pairs with {0 if codes is None else len(codes)} codes of groups: give one code for each pair"
            )
        if len(codes) and not 0 <= codes.min() <= codes.max() < len(self._sizes):
            raise ValueError(f"groups have the codes 0 to {len(self._sizes) - 1}, not {codes.min()} or {codes.max()}")
        alone = torch.from_numpy(self._sizes[codes] == 1).to(image.device)
        complete = [_single(image[alone], text[alone])] if bool(alone.any()) else []
        if not bool(alone.all()):
            complete += self._in_groups(image[~alone], text[~alone], codes[~alone.cpu().numpy()])
        return complete

    def _in_groups(self, image: Tensor, text: Tensor, codes: Codes) -> list[Units]:
        assert self._sizes is not None
        names, places, counts = np.unique(codes, return_inverse=True, return_counts=True)
        rows = torch.from_numpy(places).to(image.device)
        empty = torch.zeros(len(names), image.shape[1], dtype=torch.float64, device=image.device)
        total = torch.stack([empty.index_add(0, rows, side.double()) for side in (image, text)], 1)
        fires = torch.stack([empty.index_add(0, rows, (side != 0).double()) > 0 for side in (image, text)], 1)
        whole = counts == self._sizes[names]
        complete = [_units(total[whole], fires[whole], counts[whole])] if whole.any() else []
        for place in np.flatnonzero(~whole):
            code = int(names[place])
            complete += self._continue(code, _Open(total[place], fires[place], int(counts[place])))
        return complete

    def _continue(self, code: int, more: _Open) -> list[Units]:
        assert self._sizes is not None
        seen = more if code not in self._open else self._open.pop(code).plus(more)
        if seen.seen < self._sizes[code]:
            self._open[code] = seen
            return []
        return [_units(seen.total[None], seen.fires[None], np.array([seen.seen]))]

    def merge(self, other: GroupAverages) -> list[Units]:
        """Add what another one has seen, and return the groups that are complete with it.

        Raises:
            ValueError: the groups differ.
        """
        mine, theirs = (None if x._sizes is None else x._sizes.tolist() for x in (self, other))
        require_equal("groups", mine, theirs)
        return [units for code, seen in other._open.items() for units in self._continue(code, seen)]

    def rest(self) -> list[Units]:
        """Averages of the incomplete groups over those of their pairs that have been seen; nothing is changed."""
        return [_units(seen.total[None], seen.fires[None], np.array([seen.seen])) for seen in self._open.values()]


def _single(image: Tensor, text: Tensor) -> Units:
    return Units(image.double(), text.double(), image != 0, text != 0, np.ones(len(image), np.int64))


def _units(total: Tensor, fires: Tensor, pairs: Codes) -> Units:
    mean = total / torch.from_numpy(pairs.astype(float)).to(total.device)[:, None, None]
    return Units(mean[:, 0], mean[:, 1], fires[:, 0], fires[:, 1], pairs)
