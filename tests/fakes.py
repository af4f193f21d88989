"""Small real pairs and a small real encoder, for tests of what is built on them.

Processes that tests start import this module, so that it imports no large library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmmono.core.errors import BrokenPartError
from mmmono.data.pairs import ImageTextPair, PairSource, SkippedPair


class ColorPairs(PairSource):
    """Images of one color each, captioned by its numbers; `broken` keys cannot be read, `cut` parts stop at a pair."""

    def __init__(
        self,
        parts: Sequence[int] = (7, 5, 3),
        broken: Sequence[str] = (),
        limit: int | None = None,
        cut: Mapping[int, int] | None = None,
    ) -> None:
        self.name = "colors"
        self.sizes = list(parts)
        self.broken = set(broken)
        self.limit = limit
        self.cut = dict(cut or {})
        self.reads: list[int] = []

    def fingerprint(self) -> str:
        return hashlib.sha256(repr((self.sizes, sorted(self.broken))).encode()).hexdigest()[:8]

    def parts(self) -> list[str]:
        return [f"part-{i}" for i in range(len(self.sizes))]

    def read(self, part: int) -> Iterator[ImageTextPair | SkippedPair]:
        self.reads.append(part)
        for i in range(self.sizes[part]):
            if self.cut.get(part) == i:
                raise BrokenPartError(f"part-{part}", "is cut off")
            key = f"{part}/{i}"
            yield SkippedPair(key, "broken") if key in self.broken else self.fetch(key)

    def fetch(self, key: str, locator: str = "") -> ImageTextPair:
        red, green = (int(n) for n in key.split("/"))
        color = (red * 40 % 256, green * 30 % 256, 128)
        return ImageTextPair(key, Image.new("RGB", (8, 8), color), f"{color[0]} {color[1]}", {"red": str(red)}, key)


def _preprocess(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())


def _tokenize(captions: list[str]) -> Tensor:
    """The first three words of each caption, of which two are numbers; the padding is -1."""
    words = [[*caption.split(), "-1", "-1", "-1"][:3] for caption in captions]
    return torch.tensor([[int(word) if word.lstrip("-").isdigit() else 0 for word in of] for of in words])


@dataclass
class ColorEncoder:
    """Embeds images by their mean color and captions by their numbers, in four dimensions."""

    name: str = "color-encoder"
    fingerprint: str = "1"
    dim: int = 4
    preprocess: object = field(default=_preprocess)
    tokenize: object = field(default=_tokenize)
    batches: list[int] = field(default_factory=list)

    def encode_image(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        mean = images.float().mean((2, 3)) / 256
        return torch.cat([mean, torch.ones(len(images), 1)], dim=1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        return torch.cat([tokens[:, :2].float() / 256, torch.ones(len(tokens), 2)], dim=1)
