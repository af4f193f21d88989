"""COCO captions and instances, in the files COCO ships (Lin et al. 2014)."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from mmmono.core.errors import DataError
from mmmono.data.captions import CaptionChoice, choose_captions, picture_key
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
        """Sizes of the annotation files, and how they are read."""
        files = [self._annotations(kind) for kind in ("captions", "instances")]
        sizes = [(file.name, file.stat().st_size if file.exists() else None) for file in files]
        reading = (self.captions, self.seed if self.captions == "random" else 0, self.part_size)
        return hashlib.sha256(repr((sizes, reading)).encode()).hexdigest()[:16]

    @cached_property
    def _captions(self) -> dict[str, list[str]]:
        """File name → captions, in the order of the annotation file."""
        content = _load(self._annotations("captions"))
        names = {image["id"]: image["file_name"] for image in content["images"]}
        captions: dict[str, list[str]] = {name: [] for name in names.values()}
        for annotation in content["annotations"]:
            captions[names[annotation["image_id"]]].append(annotation["caption"])
        return captions

    @cached_property
    def _labels(self) -> dict[str, dict[str, str]]:
        """File name → category and supercategory of its largest instance that is not a crowd."""
        if not self._annotations("instances").exists():
            return {}
        content = _load(self._annotations("instances"))
        categories = {
            c["id"]: {"category": c["name"], "supercategory": c["supercategory"]} for c in content["categories"]
        }
        names = {image["id"]: image["file_name"] for image in content["images"]}
        largest: dict[str, tuple[float, int]] = defaultdict(lambda: (-1.0, 0))
        for annotation in content["annotations"]:
            name = names[annotation["image_id"]]
            if not annotation.get("iscrowd") and annotation["area"] > largest[name][0]:
                largest[name] = (annotation["area"], annotation["category_id"])
        return {name: categories[category] for name, (_, category) in largest.items()}

    @cached_property
    def _files(self) -> list[str]:
        return list(self._captions)

    def parts(self) -> list[str]:
        """Runs of `part_size` images."""
        return [f"{self.folder}-{start:06d}" for start in range(0, len(self._files), self.part_size)]

    def __len__(self) -> int:
        return sum(len(c) for c in self._captions.values()) if self.captions == "all" else len(self._files)

    def read(self, part: int) -> Iterator[ImageTextPair | SkippedPair]:
        """Read the images of a part."""
        for file in self._files[part * self.part_size : (part + 1) * self.part_size]:
            yield from self._pairs(file)

    def _pairs(self, file: str) -> Iterator[ImageTextPair | SkippedPair]:
        key = f"{self.folder}/{Path(file).stem}"
        chosen = choose_captions(key, self._captions[file], self.captions, self.seed)
        if not chosen:
            yield SkippedPair(key, "no caption")
            return
        try:
            image = decode_image((self.root / self.folder / file).read_bytes())
        except (DataError, OSError) as error:
            yield SkippedPair(key, str(error) if isinstance(error, DataError) else "no image")
            return
        labels = self._labels.get(file, {})
        for pair_key, caption in chosen:
            yield ImageTextPair(pair_key, image, caption, labels, file)

    def fetch(self, key: str, locator: str = "") -> ImageTextPair:
        """Read one image again."""
        file = locator or f"{picture_key(key).rpartition('/')[2]}.jpg"
        for pair in self._pairs(file) if file in self._captions else ():
            if isinstance(pair, ImageTextPair) and pair.key == key:
                return pair
        raise DataError(f"COCO's {self.folder} in {self.root} has no readable pair {key!r}")


def _load(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise DataError(f"{file} is no JSON ({error}): download COCO's annotations again") from error
