"""COCO captions and instances, in COCO's own file layout (Lin et al., 2014)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from mmmono.core.errors import DataError
from mmmono.core.fingerprints import files_fingerprint, folder_fingerprint
from mmmono.core.ranges import check_whole
from mmmono.data.captions import CaptionChoice, choose_captions, image_key
from mmmono.data.coco_files import Captions, CocoSplit, read_captions, read_labels
from mmmono.data.images import decode_image
from mmmono.data.pairs import ImageTextPair, PairSource, SkippedPair, check_limit, distinct_stems


class CocoPairs(PairSource):
    """Images of one split with their captions; labels `category` and `supercategory` are those of the largest instance.

    Args:
        split: the split's files.
        captions: use the `first`, a `random` (always the same one) or `all` of an image's captions.
        part_size: images per part.
        limit: number of pairs that `extract_features` takes, from the first on; None takes all.
        seed: of the random choice of captions.
    """

    name = "coco"

    def __init__(
        self,
        split: CocoSplit,
        captions: CaptionChoice = "first",
        part_size: int = 2048,
        limit: int | None = None,
        seed: int = 0,
    ) -> None:
        check_whole("part_size", part_size)
        check_limit(limit)
        self.split = split
        self.folder = split.folder
        self.captions: CaptionChoice = captions
        self.part_size = part_size
        self.limit = limit
        self.seed = seed

    def fingerprint(self) -> str:
        """Digest of the annotations' and images' whole content, and of the settings that change pairs."""
        files = {kind: self.split.annotations(kind) for kind in ("captions", "instances")}
        annotations = files_fingerprint({kind: file for kind, file in files.items() if file.exists()})
        images = folder_fingerprint(self.split.images)
        reading = (self.captions, self.seed if self.captions == "random" else 0, self.part_size)
        return hashlib.sha256(repr((annotations, images, reading)).encode()).hexdigest()[:16]

    @cached_property
    def _captions(self) -> Captions:
        return read_captions(self.split.annotations("captions"))

    @cached_property
    def _labels(self) -> dict[str, dict[str, str]]:
        """File name → labels of the image's largest instance."""
        file = self.split.annotations("instances")
        return read_labels(file, self.split.annotations("captions")) if file.exists() else {}

    @cached_property
    def _files(self) -> list[str]:
        return list(self._captions.by_file)

    @cached_property
    def _keys(self) -> dict[str, str]:
        """File name → key: the name without its extension, or with it if that is not one image's alone."""
        stems = [_without_ending(file).removeprefix(f"{self.folder}/") for file in self._files]
        return {
            file: f"{self.folder}/{key}"
            for file, key in zip(self._files, distinct_stems(self._files, stems), strict=True)
        }

    @cached_property
    def _by_key(self) -> dict[str, str]:
        return {key: file for file, key in self._keys.items()}

    def parts(self) -> list[str]:
        """Names of runs of `part_size` images. Raises DataError if there are none, or an annotation file is broken."""
        _ = self._labels  # report errors in either file before any image is read
        if not self._files:
            raise DataError(
                f"{self.split.annotations('captions')}: the list images is empty: export the annotations again"
            )
        return [f"{self.folder}-{start:06d}" for start in range(0, len(self._files), self.part_size)]

    def local_files(self, part: int) -> list[Path]:
        """The images of a part. Captions and labels were read before."""
        return [self.split.image(file) for file in self._files[part * self.part_size : (part + 1) * self.part_size]]

    def __len__(self) -> int:
        captions = self._captions.by_file
        return sum(len(c) for c in captions.values()) if self.captions == "all" else len(self._files)

    def read(self, part: int) -> Iterator[ImageTextPair | SkippedPair]:
        """Read the images of a part. Part 0 also yields a `SkippedPair` for each unlisted image that has captions."""
        if part == 0:
            for image in self._captions.unlisted:
                yield SkippedPair(f"{self.folder}/{image}", "its image is not listed")
        for file in self._files[part * self.part_size : (part + 1) * self.part_size]:
            yield from self._pairs(file)

    def _pairs(self, file: str) -> Iterator[ImageTextPair | SkippedPair]:
        key = self._keys[file]
        chosen = choose_captions(key, self._captions.by_file[file], self.captions, self.seed)
        if not chosen:
            yield SkippedPair(key, "no caption")
            return
        try:
            image = decode_image(self.split.image(file).read_bytes())
        except (DataError, OSError) as error:
            yield SkippedPair(key, str(error) if isinstance(error, DataError) else "no image")
            return
        labels = self._labels.get(file, {})
        for pair_key, caption in chosen:
            yield ImageTextPair(pair_key, image, caption, labels, file)

    def fetch(self, key: str, locator: str = "") -> ImageTextPair:
        """Read one pair again. Raises DataError if there is none with this key, or it cannot be read."""
        file = locator or self._by_key.get(self.group(key), "")
        for pair in self._pairs(file) if file in self._keys else ():
            if isinstance(pair, ImageTextPair) and pair.key == key:
                return pair
        raise DataError(f"COCO's {self.folder} in {self.split.root} has no readable pair {key!r}")

    def group(self, key: str) -> str:
        """Key of the image, so that all its captions fall into one split."""
        return image_key(key) if self.captions == "all" else key


def _without_ending(file: str) -> str:
    stem, dot, ending = file.rpartition(".")
    return stem if dot and stem and "/" not in ending and not stem.endswith("/") else file
