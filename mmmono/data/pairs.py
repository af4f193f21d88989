"""The data interface: image-text pairs, and the sources that yield them part by part."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from PIL import Image

from mmmono.core.errors import ConfigError, DataError
from mmmono.core.fingerprints import files_state
from mmmono.core.ranges import check_number
from mmmono.data.shard_cache import ShardCache

LEAST_SELECT = 200  # groups of the split `select`, if they are at most a tenth
FETCH_THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class ImageTextPair:
    """One image with one caption.

    Attributes:
        key: unique within its source and stable across runs; the argument of `PairSource.fetch`.
        image: RGB.
        caption: not empty, white space collapsed.
        labels: class labels by name (`category`, `supercategory`, ...); empty if the source has none.
        locator: position of the pair in the source, so that it can be read again without a search.
        encoded: the image file's bytes as stored in the source; empty if the source renders its images.
    """

    key: str
    image: Image.Image
    caption: str
    labels: Mapping[str, str] = field(default_factory=dict)
    locator: str = ""
    encoded: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True)
class SkippedPair:
    """A pair that could not be read; neither its image nor its caption is used, and it is counted."""

    key: str
    reason: str


class PairSource(ABC):
    """Image-text pairs in a fixed order, divided into parts: the units of parallel reading and of resuming.

    Attributes:
        name: used in progress bars and manifests.
        remote: whether images come over a network, so that caching them on disk is worthwhile.
        limit: number of pairs that `extract_features` takes, from the first on; None takes all.
    """

    name: str
    remote: bool = False
    limit: int | None = None
    _states: Sequence[str] | None = None  # of the files of each part; see `watch`

    @property
    def copies(self) -> ShardCache | None:
        """Copies of remote shards on this machine; None if the source keeps none."""
        return None

    @property
    def attribution(self) -> str:
        """Who made the images, and their licence, where it wants that to be shown beside them; empty otherwise."""
        return ""

    @abstractmethod
    def fingerprint(self) -> str:
        """Digest of the source's content and settings; changes whenever its pairs would."""

    @abstractmethod
    def parts(self) -> Sequence[str]:
        """Names of the parts, in order. Raises DataError if there are none."""

    @abstractmethod
    def read(self, part: int) -> Iterator[ImageTextPair | SkippedPair]:
        """Yield the pairs of one part in order; unreadable ones as `SkippedPair`."""

    @abstractmethod
    def fetch(self, key: str, locator: str = "") -> ImageTextPair:
        """Read one pair again. Raises DataError if the source has no such pair, or cannot read it."""

    def fetch_many(self, requests: Sequence[tuple[str, str]]) -> Iterator[ImageTextPair | SkippedPair]:
        """Read pairs again, several at a time in threads, with only a few of them in memory.

        Sources that can read several pairs in one request override this.

        Args:
            requests: (key, locator) of each pair; the locator is empty if unknown.

        Yields:
            One item per requested pair, in the requested order; a `SkippedPair` with the reason if the pair cannot be
            read, so that one broken image does not end an analysis of thousands.
        """

        def read(key: str, locator: str) -> ImageTextPair | SkippedPair:
            try:
                return self.fetch(key, locator)
            except (DataError, OSError, EOFError) as error:
                return SkippedPair(key, str(error).strip() or type(error).__name__)

        ahead: deque[Future[ImageTextPair | SkippedPair]] = deque()
        pool = ThreadPoolExecutor(FETCH_THREADS)
        try:
            for key, locator in requests:
                ahead.append(pool.submit(read, key, locator))
                if len(ahead) > 2 * FETCH_THREADS:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:  # also if the caller stops early
            pool.shutdown(wait=False, cancel_futures=True)

    def local_files(self, part: int) -> Sequence[Path]:
        """Files on this machine that a part is read from, as far as they may change while it is; none by default."""
        return ()

    def watch(self) -> None:
        """Remember the state of all files. Call it before `fingerprint`: so a change after that is noticed."""
        self._states = [files_state(self.local_files(part)) for part in range(len(self.parts()))]

    def check_unchanged(self, part: int) -> None:
        """Raise DataError if a part's files were changed since `watch`: what was read is then of another fingerprint."""
        if self._states is not None and files_state(self.local_files(part)) != self._states[part]:
            raise changed(self.parts()[part])

    def repeats(self) -> list[list[str]]:
        """Names of parts that have the same content, as far as that is known without reading them twice; none by default."""
        return []

    def count_samples(self, part: int, most: int) -> int | None:
        """Return the number of samples in a part, at most `most`; None if counting would need to read the part."""
        return None

    def __len__(self) -> int:
        """Number of pairs. Raises TypeError if it is not known without reading them."""
        raise TypeError(f"{type(self).__name__} does not know its length without reading")

    def group(self, key: str) -> str:
        """Group of a pair, such as all captions of an image: its pairs are not independent of each other."""
        return key


def changed(what: str) -> DataError:
    """The error for data that was changed while a command reads it: what was read is of another fingerprint."""
    return DataError(f"{what} was changed after this command had begun: run the same again, which reads it anew")


def check_limit(limit: int | None) -> None:
    """Raise ConfigError if a number of pairs to take is not positive; None takes all."""
    if limit is not None and limit < 1:
        raise ConfigError(f"dataset.limit={limit}: at least 1 pair is needed, or null for all")


def distinct_stems(names: Sequence[str], stems: Sequence[str]) -> list[str]:
    """Return each stem, or the whole name where the stem is also that of another name, or a name itself.

    Args:
        names: of files, each once.
        stems: the names without their extensions.
    """
    count = Counter([*stems, *(name for name, stem in zip(names, stems, strict=True) if name != stem)])
    return [stem if count[stem] == 1 else name for name, stem in zip(names, stems, strict=True)]


@dataclass(frozen=True)
class SplitShares:
    """Division of groups into three splits by a hash.

    Attributes:
        seed: of the hash.
        train: expected share of groups in `train`, on which everything is fitted.
        select: expected share of groups in `select`, on which training is stopped and settings are compared. All others are
            in `val`, on which results are reported.

    Raises:
        ValueError: a share does not lie between 0 and 1, or both together are more than all.
    """

    seed: int = 0
    train: float = 0.7
    select: float = 0.1

    def __post_init__(self) -> None:
        check_number("train", self.train, least=0, most=1)
        check_number("select", self.select, least=0, most=1)
        if self.train + self.select > 1 + 1e-9:  # 1 − s + s may round to more than 1
            raise ValueError(f"train={self.train} and select={self.select} are together more than 1: lower one of them")

    def split_of(self, group: str) -> Literal["train", "select", "val"]:
        """Return the split of a group; it depends on a hash of group and seed only, not on other pairs."""
        return self.split_at(self.place(group))

    def split_at(self, place: float) -> Literal["train", "select", "val"]:
        """Return the split of the groups at a place; see `place`."""
        if place < self.train:
            return "train"
        return "select" if place < self.train + self.select else "val"

    def place(self, group: str) -> float:
        """Hash of a group, uniform from 0 to 1: `train` is below its share, and `val` above that of both others."""
        hashed = hashlib.sha256(f"{self.seed}:{group}".encode()).digest()[:8]
        return int.from_bytes(hashed, "big") / 2**64

    def with_groups(self, places: Sequence[float]) -> SplitShares:
        """Return shares with which `select` has enough groups to select by, also if its share of few groups is hardly any.

        If it has less than half of what it should have, which is 200 groups or a tenth of all, and at least one, it gets as
        many, from `train`.

        Args:
            places: place of every group; see `place`.
        """
        both = self.train + self.select
        below = sorted(place for place in places if place < both)
        needed = max(1, min(LEAST_SELECT, len(places) // 10))
        there = sum(place >= self.train for place in below)
        if self.select == 0 or 2 * there >= needed or len(below) < 2:
            return self
        train = below[max(1, len(below) - needed)]
        return replace(self, train=train, select=both - train)
