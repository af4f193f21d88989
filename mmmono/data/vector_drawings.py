"""Vector drawings of Python packages as image-text pairs: what OpenMoji and Material Design Icons have in common."""

from __future__ import annotations

import hashlib
import io
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from PIL import Image

from mmmono.core.errors import DataError
from mmmono.core.ranges import check_whole
from mmmono.data.captions import CaptionChoice, choose_captions, image_key
from mmmono.data.pairs import ImageTextPair, PairSource, check_limit


class VectorDrawings(PairSource):
    """Drawings with captions, rendered when they are read. A subclass says which drawings there are, and their captions.

    Args:
        size: width and height of the rendered image in pixels; the background is white.
        captions: an image's first caption, one at random, or one pair for each; see the subclass.
        part_size: drawings per part.
        limit: number of pairs that `extract_features` takes, from the first on; None takes all.
        seed: of the random choice of captions.

    Attributes:
        grouping: version of groups, labels and captions, which feature stores save.
        example: keys that an error names.
    """

    grouping: ClassVar[int]
    example: ClassVar[str]

    def __init__(
        self,
        size: int = 224,
        captions: CaptionChoice = "first",
        part_size: int = 512,
        limit: int | None = None,
        seed: int = 0,
    ) -> None:
        check_whole("size", size)
        check_whole("part_size", part_size)
        check_limit(limit)
        self.size = size
        self.captions: CaptionChoice = captions
        self.part_size = part_size
        self.limit = limit
        self.seed = seed
        reading = [self.grouping, size, captions, seed if captions == "random" else 0]
        self._fingerprint = hashlib.sha256(repr([*self.packages(), reading]).encode()).hexdigest()[:16]

    @abstractmethod
    def packages(self) -> Sequence[Any]:
        """What identifies the drawings, their captions and their groups: versions of packages."""

    @property
    @abstractmethod
    def keys(self) -> list[str]:
        """Keys of all drawings, in order."""

    @abstractmethod
    def captions_of(self, key: str) -> Sequence[str]:
        """All captions of a drawing; none if there is no such drawing."""

    @abstractmethod
    def labels(self, key: str) -> dict[str, str]:
        """Labels of a drawing; empty if there are none."""

    @abstractmethod
    def svg(self, key: str) -> str:
        """A drawing as SVG."""

    def fingerprint(self) -> str:
        """Digest of the packages' versions, the image size, the choice of captions and the groups."""
        return self._fingerprint

    def parts(self) -> list[str]:
        """Names of runs of `part_size` drawings."""
        return [f"{self.name}-{start:04d}" for start in range(0, len(self.keys), self.part_size)]

    def __len__(self) -> int:
        return sum(len(self.captions_of(key)) for key in self.keys) if self.captions == "all" else len(self.keys)

    def read(self, part: int) -> Iterator[ImageTextPair]:
        """Render the drawings of a part."""
        for key in self.keys[part * self.part_size : (part + 1) * self.part_size]:
            yield from self._pairs(key)

    def fetch(self, key: str, locator: str = "") -> ImageTextPair:
        """Render one drawing again. Raises DataError if there is no pair with this key."""
        drawing = image_key(key)
        if key in dict(choose_captions(drawing, self.captions_of(drawing), self.captions, self.seed)):
            return next(pair for pair in self._pairs(drawing) if pair.key == key)
        raise DataError(f"{self.name} has no pair {key!r}: keys are {self.example}")

    def _pairs(self, drawing: str) -> Iterator[ImageTextPair]:
        image, labels = render(self.svg(drawing), self.size), self.labels(drawing)
        for key, caption in choose_captions(drawing, self.captions_of(drawing), self.captions, self.seed):
            yield ImageTextPair(key, image, caption, labels, drawing)


def render(svg: str, size: int) -> Image.Image:
    """Render an SVG on white, `size` pixels wide and high, in RGB."""
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, background="#ffffff")
    return Image.open(io.BytesIO(bytes(png))).convert("RGB")
