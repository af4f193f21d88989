"""The data contract: image-text pairs, and the sources that yield them part by part."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image


@dataclass(frozen=True)
class ImageTextPair:
    """One image with one caption.

    Attributes:
        key: unique within its source, stable across runs; what `PairSource.fetch` takes.
        image: RGB.
        caption: not empty, whitespace collapsed.
        labels: class labels by name (`category`, `supercategory`, ...); empty where the source has none.
        locator: where in the source the pair lies, so that it can be fetched again without a search.
    """

    key: str
    image: Image.Image
    caption: str
    labels: Mapping[str, str] = field(default_factory=dict)
    locator: str = ""


@dataclass(frozen=True)
class SkippedPair:
    """A pair that could not be read: both of its items are left out, and it is counted."""

    key: str
    reason: str


class PairSource(ABC):
    """Image-text pairs in a fixed order, divided into parts: the units of parallel reading and of resuming."""

    name: str

    @abstractmethod
    def fingerprint(self) -> str:
        """Digest of what the source holds and how it reads it; changes when its pairs would."""

    @abstractmethod
    def parts(self) -> Sequence[str]:
        """Names of the parts, in order. Raises DataError if there is none."""

    @abstractmethod
    def read(self, part: int) -> Iterator[ImageTextPair | SkippedPair]:
        """Yield the pairs of one part in their order; broken ones as `SkippedPair`."""

    @abstractmethod
    def fetch(self, key: str, locator: str = "") -> ImageTextPair:
        """Read one pair again. Raises DataError if the source has no such pair."""

    def __len__(self) -> int:
        """Number of pairs, where it is known without reading them; raises TypeError where it is not."""
        raise TypeError(f"{type(self).__name__} does not know its length without reading")

    def group(self, key: str) -> str:
        """Pairs of one group always fall into the same hash split; variants of one picture belong together."""
        return key


def in_train_split(group: str, seed: int = 0, train_fraction: float = 0.8) -> bool:
    """Seeded hash split: depends on the pair's group and the seed alone, never on order or on the other pairs."""
    hashed = hashlib.sha256(f"{seed}:{group}".encode()).digest()[:8]
    return int.from_bytes(hashed, "big") < train_fraction * 2**64
