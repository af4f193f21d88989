"""Resizing of pictures of any shape: what evaluation transforms compute, in memory that does not grow with the shape.

A picture of 65000 x 1 pixels, resized until its short side has 224, has 14,560,000 x 224 of them, of which the centre crop
that follows keeps 224 x 224. Here only that part is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import open_clip.transform
import timm.data.transforms
from PIL.Image import Image
from torchvision.transforms import CenterCrop, Resize
from torchvision.transforms.functional import pil_modes_mapping

KEEP_RATIO = (open_clip.transform.ResizeKeepRatio, timm.data.transforms.ResizeKeepRatio)
CROPS = (CenterCrop, open_clip.transform.CenterCropOrPad, timm.data.transforms.CenterCropOrPad)
LARGEST = 4_000_000  # pixels that a resized picture may have before it is cropped
KERNEL = 3.0  # pixels that the widest of Pillow's kernels reaches to either side, at scale 1


@dataclass(frozen=True)
class ResizeAndCrop:
    """A resize and the centre crop after it.

    Pictures whose resized version is of ordinary size go through both as they are. Of others the same pixels are computed
    by themselves, to within the rounding of coordinates.

    Attributes:
        resize: to the shortest or the longest side: torchvision's `Resize`, or `ResizeKeepRatio` of open_clip or timm.
        crop: torchvision's `CenterCrop`, or `CenterCropOrPad` of open_clip or timm.
    """

    resize: Any
    crop: Any

    def __call__(self, image: Image) -> Image:
        """The picture at the size of the crop."""
        height, width = self.resized(image)
        crop_height, crop_width = self.crop.size
        if min(height, width) > 0 and height * width <= max(LARGEST, 8 * crop_height * crop_width):
            return self.crop(self.resize(image))
        return self.by_parts(image, height, width)

    def by_parts(self, image: Image, height: int, width: int) -> Image:
        """The same, computed from the middle of the picture alone.

        Args:
            image: of any shape.
            height: of the whole picture after the resize.
            width: likewise.
        """
        crop_height, crop_width = self.crop.size
        top, rows, y, high = _middle(image.height, max(1, height), crop_height)
        left, columns, x, wide = _middle(image.width, max(1, width), crop_width)
        part = image.crop((left, top, left + columns, top + rows))
        kernel = kernel_of(self.resize)
        # One direction at a time, as Pillow would do it with the whole picture; with a box it may begin with the other one.
        part = part.resize((wide, rows), kernel, box=(x[0], 0, min(x[1], columns), rows))
        part = part.resize((wide, high), kernel, box=(0, y[0], wide, min(y[1], rows)))
        return self.crop(part)  # pads what is short of its size

    def resized(self, image: Image) -> tuple[int, int]:
        """Height and width of the whole picture after the resize; 0 where rounding leaves nothing."""
        if isinstance(self.resize, KEEP_RATIO):
            height, width = self.resize.get_params(image, self.resize.size, self.resize.longest)
            return height, width
        size = self.resize.size if isinstance(self.resize.size, int) else self.resize.size[0]
        short, long = sorted(image.size)
        longer = int(size * long / short)
        return (size, longer) if image.height <= image.width else (longer, size)


def bounded(steps: Sequence[Callable[..., Any]]) -> tuple[Callable[..., Any], ...]:
    """The steps of an evaluation transform, with each resize and the centre crop after it taken together.

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
    """The middle of a picture that is more than `aspect` times as long as it is short; others as they are.

    For transforms that cannot be taken apart, and that crop a centre from the shortest side on.
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
    """Along one side: the pixels that the crop is made of, where it lies within them, and its own length.

    Args:
        length: of the picture.
        resized: what that would become.
        crop: how much of it is kept, from the middle.
    """
    kept = min(resized, crop)
    scale = length / resized
    start = round((resized - kept) / 2) * scale
    stop = start + kept * scale
    # Whole pixels with the reach of the kernel around them, so that Pillow's coordinates, of 32 bits, stay small.
    reach = KERNEL * max(1.0, scale) + 1
    first, last = max(0, math.floor(start - reach)), min(length, math.ceil(stop + reach))
    return first, last - first, (start - first, stop - first), kept


def kernel_of(resize: Any) -> Any:
    """Pillow's number of a resize step's interpolation."""
    return pil_modes_mapping[resize.interpolation]
