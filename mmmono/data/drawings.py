"""OpenMoji's drawings and Material Design Icons, one after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from mmmono.data.captions import CaptionChoice
from mmmono.data.icons import IconPairs
from mmmono.data.openmoji import OpenMojiPairs
from mmmono.data.pairs import ImageTextPair, PairSource, SkippedPair


class DrawingPairs(PairSource):
    """All pairs of `OpenMojiPairs`, then all of `IconPairs`. Keys, captions, labels and groups are theirs.

    An icon that is called like an emoji is in its group, so that what has one caption is on one side of every split.

    Args:
        size, captions, part_size, limit, seed: see `OpenMojiPairs` and `IconPairs`.

    Attributes:
        members: the two sources.

    Raises:
        DataError: the packages of the `demo` extra are not installed.
    """

    name = "drawings"

    def __init__(
        self,
        size: int = 224,
        captions: CaptionChoice = "first",
        part_size: int = 512,
        limit: int | None = None,
        seed: int = 0,
    ) -> None:
        self.icons = IconPairs(size, captions, part_size, seed=seed)
        self.members: Sequence[PairSource] = (OpenMojiPairs(size, captions, part_size, seed=seed), self.icons)
        self.limit = limit

    @property
    def attribution(self) -> str:
        """The members' lines."""
        return "; ".join(member.attribution for member in self.members)

    def fingerprint(self) -> str:
        """Digest of the members' fingerprints."""
        return hashlib.sha256(repr([member.fingerprint() for member in self.members]).encode()).hexdigest()[:16]

    def parts(self) -> list[str]:
        """Names of the members' parts."""
        return [name for member in self.members for name in member.parts()]

    def __len__(self) -> int:
        return sum(len(member) for member in self.members)

    def read(self, part: int) -> Iterator[ImageTextPair | SkippedPair]:
        """Render the drawings of a part."""
        for member in self.members:
            if part < len(member.parts()):
                return member.read(part)
            part -= len(member.parts())
        raise IndexError(part)

    def fetch(self, key: str, locator: str = "") -> ImageTextPair:
        """Render one drawing again. Raises DataError if there is no pair with this key."""
        return self._member(key).fetch(key, locator)

    def group(self, key: str) -> str:
        """Group of a pair in its own source."""
        return self._member(key).group(key)

    def _member(self, key: str) -> PairSource:
        return self.icons if key in self.icons else self.members[0]
