"""Resizing of images of any shape, against the transforms of torchvision, open_clip and timm themselves."""

from __future__ import annotations

import pickle
import resource
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import Compose

from mmmono.core.errors import ConfigError
from mmmono.vlm import resizing
from mmmono.vlm.resizing import ResizeAndCrop, bounded, by_torch, narrowed

TRANSFORMS = {
    "shortest": open_clip.image_transform(32, is_train=False),
    "bilinear": open_clip.image_transform(32, is_train=False, interpolation="bilinear"),
    "not square": open_clip.image_transform((24, 40), is_train=False),
    "longest": open_clip.image_transform(32, is_train=False, resize_mode="longest", fill_color=9),
    "timm": timm.data.create_transform((3, 32, 32), crop_pct=0.9, interpolation="bicubic"),
    "timm border": timm.data.create_transform((3, 32, 32), crop_mode="border", interpolation="bicubic"),
    "timm not square": timm.data.create_transform((3, 24, 40), crop_pct=0.9),
}


RECENT = tuple(map(int, torch.__version__.split(".")[:2])) >= (
    2,
    12,
)  # before, bilinear weights were rounded more coarsely


def pil_steps(transform: Compose) -> list[Any]:
    return transform.transforms[:2]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def levels(image: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(image).astype(int)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(TRANSFORMS)), st.integers(1, 90), st.integers(1, 90), st.integers(0, 20), st.integers(0, 99)
)
def test_the_part_is_the_crop_of_the_whole(name: str, width: int, height: int, longer: int, seed: int) -> None:
    image = noise(width * (1 + longer), height, seed)
    resize, crop = pil_steps(TRANSFORMS[name])
    (step,) = bounded([resize, crop])
    try:
        whole = crop(resize(image))
    except ValueError:  # nothing is left of the short side
        assert step(image).size == tuple(crop.size)[::-1]
        return
    assert (levels(step(image)) == levels(whole)).all()
    high, wide = step.resized(image)
    # The columns first, then the rows: Pillow takes either order, which differ where a pass overshoots and is clipped.
    mode = resizing.kernel_of(resize)
    ordered = crop(image.resize((wide, image.height), mode).resize((wide, high), mode))
    assert np.abs(levels(step.by_parts(image, high, wide)) - levels(ordered)).max() <= 3  # of 255: both passes round


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
@pytest.mark.parametrize("size", [(65000, 1), (1, 65000), (30000, 3), (3_000_000, 1)])
def test_extreme_images_take_no_more_memory_than_others(name: str, size: tuple[int, int]) -> None:
    step = bounded(pil_steps(TRANSFORMS[name]))[0]
    assert isinstance(step, ResizeAndCrop)
    step(noise(300, 200))
    image = noise(*size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = step(image)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # kilobytes
    assert found.size == tuple(step.crop.size)[::-1]
    if name in ("shortest", "timm"):  # of the middle alone they make the same
        middle = narrowed(image, 34)
        assert middle.size != image.size
        plain = step.crop(step.resize(middle))
        assert np.abs(levels(found) - levels(plain)).max() <= 1


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("size", [(100, 75), (75, 100), (64, 64), (33, 32), (20, 31), (300, 40), (32, 32), (9000, 60)])
def test_pytorch_resizes_as_pillow_does(name: str, size: tuple[int, int]) -> None:
    width, height = size
    smooth = np.asarray(noise(7, 7).resize(size, Image.Resampling.BICUBIC), int)
    image = Image.fromarray(np.clip(smooth + np.asarray(noise(width, height), int) // 8, 0, 255).astype(np.uint8))
    (step,) = bounded(pil_steps(TRANSFORMS[name]))
    (fast,) = by_torch([step])
    expected, got = np.asarray(step(image), int), np.asarray(fast(image), int)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 2
    assert np.mean(got != expected) < (0.1 if RECENT else 0.25)
    if name != "timm border":  # which pads with three values
        gray = image.convert("L")
        assert np.array_equal(np.asarray(fast(gray)), np.asarray(step(gray)))
    assert pickle.loads(pickle.dumps(fast)) is not None


def test_pytorch_does_not_resize_otherwise() -> None:
    for transform in (
        open_clip.image_transform(32, is_train=False, resize_mode="squash"),
        timm.data.create_transform((3, 32, 32), crop_pct=0.9, interpolation="lanczos"),
    ):
        with pytest.raises(ConfigError, match="set extraction.resize=pillow"):
            by_torch(bounded(transform.transforms))


def test_other_steps_are_left_alone() -> None:
    squash = open_clip.image_transform(32, is_train=False, resize_mode="squash").transforms
    assert bounded(squash) == tuple(squash)
    assert squash[0](noise(65000, 1)).size == (32, 32)
    steps = bounded(TRANSFORMS["shortest"].transforms)
    assert len(steps) == len(TRANSFORMS["shortest"].transforms) - 1
    image = noise(50, 40)
    assert (levels(pickle.loads(pickle.dumps(steps[0]))(image)) == levels(steps[0](image))).all()


def test_only_long_images_are_narrowed() -> None:
    assert narrowed(noise(90, 30)).size == (90, 30)
    tall = noise(2, 101)
    assert (levels(narrowed(tall, 4)) == levels(tall)[46:54]).all()
