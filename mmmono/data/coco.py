"""COCO captions and instances, in the files COCO ships (Lin et al. 2014)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from mmmono.core.errors import DataError
from mmmono.core.fingerprints import files_fingerprint, folder_fingerprint
from mmmono.data.captions import CaptionChoice, choose_captions, picture_key
from mmmono.data.coco_files import Captions, read_captions, read_labels
from mmmono.data.images import decode_image
from mmmono.data.pairs import ImageTextPair, PairSource, SkippedPair


class CocoPairs(PairSource):
    """Images of one split with their captions; labels `category` and `supercategory` are the largest instance's.

    Args:
        root: folder with `annotations/captions_<split><year>.json`, `<split><year>/*.jpg` and, for labels,
            `annotations/instances_<split><year>.json`.
        split: `train` or `val`.
        year: of the release.
        captions: `first`, `random` (the same every time) or `all` of a picture's captions.
        part_size: images a part.
        limit: how many of the first pairs are wanted.
        seed: of the random choice of captions.

    Raises:
        DataError: the folder lacks images or captions of the split.
    """

    name = "coco"

    def __init__(
        self,
        root: str | Path,
        split: str = "val",
        year: int = 2017,
        captions: CaptionChoice = "first",
        part_size: int = 2048,
        limit: int | None = None,
        seed: int = 0,
    ) -> None:
        self.root = Path(root)
        self.folder = f"{split}{year}"
        self.captions: CaptionChoice = captions
        self.part_size = part_size
        self.limit = limit
        self.seed = seed
        for needed in (self._annotations("captions"), self.root / self.folder):
            if not needed.exists():
                raise DataError(
                    f"{needed} is not there: dataset.root must be COCO's folder, with annotations/captions_{self.folder}"
                    f".json and {self.folder}/*.jpg in it"
                )

    def _annotations(self, kind: str) -> Path:
        return self.root / "annotations" / f"{kind}_{self.folder}.json"

    def fingerprint(self) -> str:
        """Digest of the annotations and of the pictures, by their whole content, and of how they are read."""
        files = {kind: self._annotations(kind) for kind in ("captions", "instances")}
        annotations = files_fingerprint({kind: file for kind, file in files.items() if file.exists()})
        pictures = folder_fingerprint(self.root / self.folder)
        reading = (self.captions, self.seed if self.captions == "random" else 0, self.part_size)
        return hashlib.sha256(repr((annotations, pictures, reading)).encode()).hexdigest()[:16]

    @cached_property
    def _captions(self) -> Captions:
        return read_captions(self._annotations("captions"))

    @cached_property
    def _labels(self) -> dict[str, dict[str, str]]:
        """File name → labels of its largest instance."""
        file = self._annotations("instances")
        return read_labels(file, self._annotations("captions")) if file.exists() else {}

    @cached_property
    def _files(self) -> list[str]:
        return list(self._captions.by_file)

    @cached_property
    def _keys(self) -> dict[str, str]:
        """File name → key: the name without its ending, or with it where two pictures differ in nothing else."""
        stems = {file: _without_ending(file).removeprefix(f"{self.folder}/") for file in self._files}
        count = Counter(stems.values())
        return {file: f"{self.folder}/{stem if count[stem] == 1 else file}" for file, stem in stems.items()}

    @cached_property
    def _by_key(self) -> dict[str, str]:
        return {key: file for file, key in self._keys.items()}

    def parts(self) -> list[str]:
        """Runs of `part_size` images. Raises DataError if there is none, or an annotation file is broken."""
        _ = self._labels  # errors in either file come before any picture is read
        if not self._files:
            raise DataError(f"{self._annotations('captions')}: the list images is empty")
        return [f"{self.folder}-{start:06d}" for start in range(0, len(self._files), self.part_size)]

    def __len__(self) -> int:
        captions = self._captions.by_file
        return sum(len(c) for c in captions.values()) if self.captions == "all" else len(self._files)

    def read(self, part: int) -> Iterator[ImageTextPair | SkippedPair]:
        """Read the images of a part; what captions name and no list has is skipped with the first."""
        if part == 0:
            for picture in self._captions.unlisted:
                yield SkippedPair(f"{self.folder}/{picture}", "its image is not listed")
        for file in self._files[part * self.part_size : (part + 1) * self.part_size]:
            yield from self._pairs(file)

    def _pairs(self, file: str) -> Iterator[ImageTextPair | SkippedPair]:
        key = self._keys[file]
        chosen = choose_captions(key, self._captions.by_file[file], self.captions, self.seed)
        if not chosen:
            yield SkippedPair(key, "no caption")
            return
        try:
            image = decode_image(self._path(file).read_bytes())
        except (DataError, OSError) as error:
            yield SkippedPair(key, str(error) if isinstance(error, DataError) else "no image")
            return
        labels = self._labels.get(file, {})
        for pair_key, caption in chosen:
            yield ImageTextPair(pair_key, image, caption, labels, file)

    def _path(self, file: str) -> Path:
        """Where a picture lies: in the split's folder, which some tools name again."""
        return self.root / self.folder / file.removeprefix(f"{self.folder}/")

    def fetch(self, key: str, locator: str = "") -> ImageTextPair:
        """Read one image again."""
        file = locator or self._by_key.get(key) or self._by_key.get(picture_key(key), "")
        for pair in self._pairs(file) if file in self._keys else ():
            if isinstance(pair, ImageTextPair) and pair.key == key:
                return pair
        raise DataError(f"COCO's {self.folder} in {self.root} has no readable pair {key!r}")

    def group(self, key: str) -> str:
        """Captions of one picture belong together."""
        return key if key in self._by_key else picture_key(key)


def _without_ending(file: str) -> str:
    stem, dot, ending = file.rpartition(".")
    return stem if dot and stem and "/" not in ending and not stem.endswith("/") else file
