"""The data contract: image-text pairs, and the sources that yield them part by part."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from PIL import Image

from mmmono.core.errors import DataError

FETCH_THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class ImageTextPair:
    """One image with one caption.

    Attributes:
        key: unique within its source, stable across runs; what `PairSource.fetch` takes.
        image: RGB.
        caption: not empty, whitespace collapsed.
        labels: class labels by name (`category`, `supercategory`, ...); empty where the source has none.
        locator: where in the source the pair lies, so that it can be fetched again without a search.
        encoded: the picture's file as the source holds it; empty where the source draws its pictures.
    """

    key: str
    image: Image.Image
    caption: str
    labels: Mapping[str, str] = field(default_factory=dict)
    locator: str = ""
    encoded: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True)
class SkippedPair:
    """A pair that could not be read: both of its items are left out, and it is counted."""

    key: str
    reason: str


class PairSource(ABC):
    """Image-text pairs in a fixed order, divided into parts: the units of parallel reading and of resuming.

    Attributes:
        name: what progress bars and manifests call the source.
        remote: whether pictures come over a network, so that a copy on disk is worth keeping.
    """

    name: str
    remote: bool = False

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
        """Read one pair again. Raises DataError if the source has no such pair, or cannot read it."""

    def fetch_many(self, wanted: Sequence[tuple[str, str]]) -> Iterator[ImageTextPair | SkippedPair]:
        """Read pairs again, several at a time in threads, with only a few of them in memory.

        Sources for which one request can bring several pairs override this.

        Args:
            wanted: keys with their locators, an empty one where it is not known.

        Yields:
            One item for each wanted pair, in the order wanted: a `SkippedPair` with the reason where a pair cannot be
            read, so that one broken picture does not end the analysis of thousands.
        """

        def read(key: str, locator: str) -> ImageTextPair | SkippedPair:
            try:
                return self.fetch(key, locator)
            except (DataError, OSError, EOFError) as error:
                return SkippedPair(key, str(error).strip() or type(error).__name__)

        ahead: deque[Future[ImageTextPair | SkippedPair]] = deque()
        pool = ThreadPoolExecutor(FETCH_THREADS)
        try:
            for key, locator in wanted:
                ahead.append(pool.submit(read, key, locator))
                if len(ahead) > 2 * FETCH_THREADS:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:  # also where the caller stops early
            pool.shutdown(wait=False, cancel_futures=True)

    def count_samples(self, part: int, most: int) -> int | None:
        """How many samples a part has, counted up to `most`; None where that cannot be told without reading it."""
        return None

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
