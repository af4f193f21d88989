"""Resizing of images with any aspect ratio, as evaluation transforms do, in bounded memory.

If the short side of a 65000 x 1 image is resized to 224 pixels, the result has 14,560,000 x 224 pixels, of which the
following center crop keeps 224 x 224. Only that crop is computed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import open_clip.transform
import timm.data.transforms
import torch
from PIL.Image import Image, fromarray
from torchvision.transforms import CenterCrop, InterpolationMode, Resize
from torchvision.transforms.functional import pil_modes_mapping
from torchvision.transforms.v2.functional import resize  # in integers, unlike the earlier one

from mmmono.core.errors import ConfigError

KEEP_RATIO = (open_clip.transform.ResizeKeepRatio, timm.data.transforms.ResizeKeepRatio)
CROPS = (CenterCrop, open_clip.transform.CenterCropOrPad, timm.data.transforms.CenterCropOrPad)
BY_TORCH = (InterpolationMode.BICUBIC, InterpolationMode.BILINEAR)  # PyTorch resizes bytes in no other way
LARGEST = 4_000_000  # maximum pixels of a resized image before it is cropped
KERNEL = 3.0  # radius of Pillow's widest kernel in pixels, at scale 1


@dataclass(frozen=True)
class ResizeAndCrop:
    """A resize followed by a center crop.

    Images whose resized version is of ordinary size go through both steps unchanged. For others, only the pixels of the
    crop are computed, equal up to rounding of coordinates.

    Attributes:
        resize: to the shortest or the longest side: torchvision's `Resize`, or `ResizeKeepRatio` of open_clip or timm.
        crop: torchvision's `CenterCrop`, or `CenterCropOrPad` of open_clip or timm.
    """

    resize: Any
    crop: Any

    def __call__(self, image: Image) -> Image:
        """Return the image at the size of the crop."""
        height, width = self.resized(image)
        crop_height, crop_width = self.crop.size
        if min(height, width) > 0 and height * width <= max(LARGEST, 8 * crop_height * crop_width):
            return self.crop(self.resize(image))
        return self.by_parts(image, height, width)

    def by_parts(self, image: Image, height: int, width: int) -> Image:
        """Return the same crop, computed from the middle of the image only.

        Args:
            image: of any shape.
            height, width: of the whole image after the resize, in pixels.
        """
        crop_height, crop_width = self.crop.size
        top, rows, y, high = _middle(image.height, max(1, height), crop_height)
        left, columns, x, wide = _middle(image.width, max(1, width), crop_width)
        part = image.crop((left, top, left + columns, top + rows))
        kernel = kernel_of(self.resize)
        # Width first, then height, as Pillow resizes whole images; with a box it may choose the other order.
        part = part.resize((wide, rows), kernel, box=(x[0], 0, min(x[1], columns), rows))
        part = part.resize((wide, high), kernel, box=(0, y[0], wide, min(y[1], rows)))
        return self.crop(part)  # pads if smaller than the crop

    def resized(self, image: Image) -> tuple[int, int]:
        """Return height and width of the whole image after the resize; 0 if rounding leaves no pixel."""
        if isinstance(self.resize, KEEP_RATIO):
            height, width = self.resize.get_params(image, self.resize.size, self.resize.longest)
            return height, width
        size = self.resize.size if isinstance(self.resize.size, int) else self.resize.size[0]
        short, long = sorted(image.size)
        longer = int(size * long / short)
        return (size, longer) if image.height <= image.width else (longer, size)


@dataclass(frozen=True)
class ResizeByTorch:
    """The same resize and crop with PyTorch's resize of bytes, which is several times as fast as Pillow's.

    Both compute the same weighted means with an anti-aliasing kernel, in integers that are rounded differently: of
    photographs about 0.3 % of the values differ, nearly all by 1 of 255.

    Attributes:
        pillow: the same with Pillow, for images that are not of ordinary size.
    """

    pillow: ResizeAndCrop

    def __call__(self, image: Image) -> Image:
        """Return the image at the size of the crop."""
        height, width = self.pillow.resized(image)
        if image.mode != "RGB" or not 0 < height * width <= LARGEST or image.size == (width, height):
            return self.pillow(image)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        small = resize(pixels, [height, width], self.pillow.resize.interpolation, antialias=True)
        return self.pillow.crop(fromarray(small.permute(1, 2, 0).contiguous().numpy()))


def by_torch(steps: Sequence[Callable[..., Any]]) -> tuple[Callable[..., Any], ...]:
    """Return steps that `bounded` returned, with PyTorch's resize instead of Pillow's.

    Raises:
        ConfigError: none of them can be resized so: they keep no aspect ratio, crop nothing, or interpolate otherwise.
    """

    def same(step: Callable[..., Any]) -> Callable[..., Any]:
        if isinstance(step, ResizeAndCrop) and step.resize.interpolation in BY_TORCH:
            return ResizeByTorch(step)
        return step

    changed = tuple(map(same, steps))
    if not any(isinstance(step, ResizeByTorch) for step in changed):
        raise ConfigError(
            "extraction.resize=torch resizes one side bicubically or bilinearly and takes a center crop, which this model "
            "does not: set extraction.resize=pillow"
        )
    return changed


def bounded(steps: Sequence[Callable[..., Any]]) -> tuple[Callable[..., Any], ...]:
    """Return the steps of an evaluation transform with each resize and following center crop fused.

    Args:
        steps: of torchvision's, open_clip's or timm's transforms.
    """
    fused: list[Callable[..., Any]] = []
    for step in steps:
        if fused and isinstance(step, CROPS) and _keeps_ratio(fused[-1]):
            fused[-1] = ResizeAndCrop(fused[-1], step)
        else:
            fused.append(step)
    return tuple(fused)


def narrowed(image: Image, aspect: float = 16.0) -> Image:
    """Return the middle of an image whose long side exceeds `aspect` times its short side; other images unchanged.

    For transforms that cannot be taken apart, and that take a center crop relative to the shortest side.
    """
    longest = int(aspect * min(image.size))
    if max(image.size) <= longest:
        return image
    width, height = (min(side, longest) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _keeps_ratio(step: object) -> bool:
    if isinstance(step, KEEP_RATIO):
        return True
    return isinstance(step, Resize) and step.max_size is None and (isinstance(step.size, int) or len(step.size) == 1)


def _middle(length: int, resized: int, crop: int) -> tuple[int, int, tuple[float, float], int]:
    """Return what a crop needs along one side: first pixel, number of pixels, crop bounds in them, crop length.

    Args:
        length: of the image, in pixels.
        resized: length after the resize.
        crop: length of the center crop.
    """
    kept = min(resized, crop)
    scale = length / resized
    start = round((resized - kept) / 2) * scale
    stop = start + kept * scale
    # Cut out whole pixels plus the kernel's radius, so that Pillow's 32-bit coordinates stay small.
    reach = KERNEL * max(1.0, scale) + 1
    first, last = max(0, math.floor(start - reach)), min(length, math.ceil(stop + reach))
    return first, last - first, (start - first, stop - first), kept


def kernel_of(resize: Any) -> Any:
    """Return Pillow's constant for a resize step's interpolation."""
    return pil_modes_mapping[resize.interpolation]
