"""The image decoder of all sources: converts any file to upright 8-bit RGB, or raises a DataError with the reason.

Conventions:

- 16-bit gray is scaled to 8 bits (value / 257; of 16-bit color, Pillow keeps the upper 8 bits), 32-bit integers and
  floats by the range that their values fill.
- Transparent pixels are blended onto white, as on a web page.
- Images are turned upright by their EXIF orientation. CLIP's own pipelines do not do that: they show a model the
  photographs of many phones lying on their side.
- Of animations and multi-page files, the first image is used.
- ICC profiles are ignored, as in CLIP's own pipelines; CMYK is converted without one.
"""

from __future__ import annotations

import io
import warnings
from functools import cache
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from mmmono.core.errors import DataError

DECODER_VERSION = 2  # part of every recipe that depends on pixels; raise it whenever decoded pixels change

# Formats that Pillow passes to another program, or of which it reads the header only.
_NOT_RASTER = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_SIXTEEN_BIT_FORMATS = {"JPEG2000", "PNG", "PPM"}  # in these, mode I holds values up to 65535
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ROWS = 256  # rows of an image with more than 8 bits that are scaled at a time

# Pillow's warnings about large images and broken EXIF do not help users: an image is decoded, or a DataError is raised.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_image(data: bytes) -> Image.Image:
    """Decode an image file to RGB, 8 bits per channel, by the conventions of this module.

    Args:
        data: a whole file in any raster format that Pillow reads.

    Raises:
        DataError: the data is not an image, broken, cut off, larger than 179 million pixels, or its values have no
            known scale.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as file:
            file.load()
            orientation = _orientation(file)
            image = _to_rgb(file)
            return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError("image of more than 179 million pixels") from error
    except UnidentifiedImageError as error:
        if is_svg(data):
            raise DataError("an SVG drawing, which has no pixels: render it first") from error
        raise DataError(f"unreadable image ({'of no known format' if data else 'an empty file'})") from error
    except Exception as error:  # Pillow's decoders raise whatever their format's parser does
        cut = isinstance(error, OSError) and "truncated" in str(error)
        raise DataError(f"unreadable image ({'cut off' if cut else type(error).__name__})") from error


def is_svg(data: bytes) -> bool:
    """Whether data is an SVG drawing, which is an image although it is text."""
    head = data[:4096].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return head.startswith(b"<svg") or (head.startswith((b"<?xml", b"<!doctype", b"<!--")) and b"<svg" in head)


@cache
def _formats() -> list[str]:
    Image.init()
    return sorted(set(Image.ID) - _NOT_RASTER)


def _orientation(file: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 (upright) if missing or unreadable."""
    try:
        return int(file.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # many intact images have broken EXIF
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _scaled(image).convert("RGB")
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    if image.has_transparency_data:
        # Transparent pixels hold arbitrary colors.
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _scaled(image: Image.Image) -> Image.Image:
    """Scale a gray image of more than 8 bits to 8."""
    values = np.asarray(image)
    tags: Any = getattr(image, "tag_v2", {})
    unsigned = tags.get(ExifTags.Base.SampleFormat, (1,)) in (1, (1,))
    if image.mode == "I" and tags and unsigned:
        values = values.view(np.uint32)  # Pillow has no unsigned 32-bit mode
    top = _top(image, values)
    levels = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _ROWS):
        part = values[start : start + _ROWS].astype(np.float64)
        levels[start : start + _ROWS] = np.rint(part * (255 / top))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):  # the value of transparent pixels
        levels[values == transparent] = 255
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:  # TIFF's WhiteIsZero
        levels = 255 - levels
    return Image.fromarray(levels)


def _top(image: Image.Image, values: np.ndarray[Any, Any]) -> float:
    """Return the value that means white. Raises DataError if it cannot be determined."""
    if image.mode.startswith("I;16") or (image.format in _SIXTEEN_BIT_FORMATS and image.mode == "I"):
        bits = getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, (16,))
        return 4095 if bits == (12,) else 65535
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low) or not np.isfinite(high):
        raise DataError("image of float values that are not all finite")
    if low < 0:
        raise DataError("image of values below 0")
    if image.mode == "I":
        return next(top for top in (255, 65535, 2**31 - 1, 2**32 - 1) if high <= top)
    # Float images range to 1, 255 or 65535; a maximum between 1 and 2 fits none of these.
    if high <= 1:
        return 1
    if high < 2 or high > 65535:
        raise DataError("image of float values that fill neither 0 to 1, 0 to 255, nor 0 to 65535")
    return 255 if high <= 255 else 65535
