"""Pairs of images and captions that lie as files on this machine, listed by a folder or a table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from mmmono.core.errors import DataError
from mmmono.core.fingerprints import files_fingerprint
from mmmono.core.text import escaped_bytes
from mmmono.data.captions import choose_captions, image_key, without_caption
from mmmono.data.images import decode_image
from mmmono.data.listings import Listed, Listing
from mmmono.data.pairs import ImageTextPair, PairSource, SkippedPair, check_limit, distinct_stems
from mmmono.data.tables import TableReading

PART = 1024  # images that one process reads at a time


class ListedPairs(PairSource):
    """Images of a listing with their captions.

    The key of an image is its path in the listing's folder without the extension; that of a further caption has a number.

    Args:
        listing: the images.
        name: of the source.
        reading: which captions are used.
        limit: number of pairs that `extract_features` takes, from the first on; None takes all.

    Raises:
        ConfigError: the limit is not positive.
    """

    def __init__(self, listing: Listing, name: str, reading: TableReading, limit: int | None = None) -> None:
        check_limit(limit)
        self.listing = listing
        self.name = name
        self.reading = reading
        self.limit = limit

    def fingerprint(self) -> str:
        """Digest of the whole content of all images and tables, of their order, and of what chooses captions."""
        listing = self.listing
        there = {self._name(image): image.file for image in listing.images if image.file.is_file()}
        digest = files_fingerprint({**there, **{f"/{name}": file for name, file in listing.tables.items()}})
        rows = [(self._name(one), one.captions, sorted(one.labels.items())) for one in listing.images]
        return hashlib.sha256(repr((digest, rows, self.reading.identity, PART)).encode(errors="replace")).hexdigest()[
            :16
        ]

    def parts(self) -> list[str]:
        """Names of runs of images."""
        return [f"{self.name}-{start:07d}" for start in range(0, len(self.listing.images), PART)]

    def local_files(self, part: int) -> list[Path]:
        """The images of a part. Captions were read with the listing, before."""
        return [image.file for image in self.listing.images[part * PART : (part + 1) * PART]]

    def __len__(self) -> int:
        if self.reading.captions != "all":
            return len(self.listing.images)
        return sum(len(choose_captions("", image.captions, "all")) for image in self.listing.images)

    def read(self, part: int) -> Iterator[ImageTextPair | SkippedPair]:
        """Read the images of a part. Part 0 also yields the rows that name no image."""
        if part == 0:
            yield from self.listing.skipped
        for number in range(part * PART, min((part + 1) * PART, len(self.listing.images))):
            yield from self._pairs(number)

    def _pairs(self, number: int) -> Iterator[ImageTextPair | SkippedPair]:
        image, key = self.listing.images[number], self._keys[number]
        chosen = choose_captions(key, image.captions, self.reading.captions, self.reading.seed)
        if not chosen:
            yield SkippedPair(key, without_caption(image.captions))
            return
        try:
            decoded = decode_image(image.file.read_bytes())
        except DataError as error:
            yield SkippedPair(key, str(error))
            return
        except (OSError, ValueError) as error:
            yield SkippedPair(key, "no image" if isinstance(error, FileNotFoundError) else "unreadable image file")
            return
        for pair_key, caption in chosen:
            yield ImageTextPair(pair_key, decoded, caption, image.labels, str(number))

    def fetch(self, key: str, locator: str = "") -> ImageTextPair:
        """Read one pair again. Raises DataError if there is none with this key, or it cannot be read."""
        number = self._numbers.get(self.group(key))
        reason = ""
        for pair in self._pairs(number) if number is not None else ():
            if isinstance(pair, ImageTextPair) and pair.key == key:
                return pair
            reason = pair.reason if isinstance(pair, SkippedPair) else reason
        raise DataError(f"{self.listing.root} has no readable pair {key!r}{f': {reason}' if reason else ''}")

    def group(self, key: str) -> str:
        """Key of the image, so that all its captions fall into one split."""
        return image_key(key) if self.reading.captions == "all" else key

    @cached_property
    def _keys(self) -> list[str]:
        names = [self._name(image) for image in self.listing.images]
        return distinct_stems(names, [_without_suffix(name) for name in names])

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {key: number for number, key in enumerate(self._keys)}

    def _name(self, image: Listed) -> str:
        """Path of an image in the listing's folder, or its whole path if it lies elsewhere, as text of valid Unicode."""
        root = self.listing.root
        return escaped_bytes(
            (image.file.relative_to(root) if image.file.is_relative_to(root) else image.file).as_posix()
        )


def _without_suffix(name: str) -> str:
    path = Path(name)
    return path.with_suffix("").as_posix() if path.suffix and path.stem else name
