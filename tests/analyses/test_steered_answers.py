"""Which features get which names, and which images are asked about, on small tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmmono.analyses.steered_answers.analysis import _readable
from mmmono.analyses.steered_answers.naming import best_of_classes, shown_names
from mmmono.core.errors import ConfigError, DataError
from mmmono.data import ImageTextPair, SkippedPair
from mmmono.pipeline.images import SplitImages


def row(feature: int, of: str, name: str, low: float, named: bool = True) -> dict[str, Any]:
    """A row of the table of names whose interval begins at `low` on both sides."""
    return {
        "feature": feature, "class": of, "name": name, "named": named, "auroc_image_low": low, "auroc_text_low": low,
    }  # fmt: skip


ROWS = [
    row(1, "ImgD", "dog", 0.9), row(2, "ImgD", "sea", 0.8), row(3, "ImgD", "cat", 0.7),
    row(4, "TextD", "dog", 0.95), row(5, "TextD", "sky", 0.6), row(6, "TextD", "red", 0.7), row(9, "TextD", "dog", 0.5),
    row(7, "CrossD", "sky", 0.9), row(8, "CrossD", "car", 0.9, named=False), row(10, "CrossD", "box", 0.6),
]  # fmt: skip


def test_a_name_belongs_to_one_feature_and_each_class_gets_as_many_as_it_has_other_names() -> None:
    assert best_of_classes(ROWS, 2) == {1: "dog", 2: "sea", 6: "red", 5: "sky", 10: "box"}
    assert best_of_classes(ROWS, 1) == {1: "dog", 6: "red", 7: "sky"}


def test_shown_features_need_names_of_their_own() -> None:
    assert shown_names(ROWS, [9, 7], "sae") == {9: "dog", 7: "sky"}  # 9 is not the best “dog” of its class
    with pytest.raises(ConfigError, match=r"no name of features \[8, 99\] of sae holds: choose of \[1, 2, .* 10\]"):
        shown_names(ROWS, [1, 99, 8], "sae")
    with pytest.raises(ConfigError, match=r"features \[4, 9\] of sae have the same name, “dog”"):
        shown_names(ROWS, [4, 7, 9], "sae")


class SomeBroken(SplitImages):
    """Images of a split of which some cannot be read."""

    def __init__(self, broken: set[int], count: int) -> None:
        self._source = self  # type: ignore[assignment]
        self._keys, self._locators = [str(i) for i in range(count)], [""] * count
        self._had, self.missing, self._broken = set(), {}, broken

    def fetch_many(self, asked: list[tuple[str, str]]) -> Iterator[ImageTextPair | SkippedPair]:
        for key, _ in asked:
            broken = int(key) in self._broken
            image = Image.new("RGB", (2, 2), (int(key), 0, 0))
            yield SkippedPair(key, "gone") if broken else ImageTextPair(key, image, "a caption")


def test_images_that_cannot_be_read_are_replaced_by_the_next_in_order() -> None:
    order = np.random.default_rng(0).permutation(200)
    broken = set(order[:10].tolist())
    rows, images = _readable(SomeBroken(broken, 200), order, 3)
    assert rows == sorted(order[10:13].tolist())
    assert [image.getpixel((0, 0)) for image in images] == [(at, 0, 0) for at in rows]
    with pytest.raises(DataError, match="not one of 64 images could be read: gone"):
        _readable(SomeBroken(set(range(200)), 200), order, 3)
    with pytest.raises(DataError, match="not two images"):
        _readable(SomeBroken(set(order[1:].tolist()), 200), order, 3)
