"""The one decoder of pictures: whatever a file holds becomes 8-bit RGB, upright, or a DataError says why not.

What is decided here, for every source alike:

- 16 bits of gray are scaled to 8 (value / 257; in color Pillow keeps the upper 8), 32-bit integers and floats by the range
  that their values fill.
- Transparent pixels are shown as a page would show them, on white.
- Pictures are turned upright as their EXIF orientation says. CLIP's own pipelines do not do that: they show a model the
  photographs of many phones lying on their side.
- Of animations and of files with several pages it is the first picture.
- ICC profiles are not applied, as CLIP's own pipelines do not apply them; CMYK is converted without one.
"""

from __future__ import annotations

import io
import warnings
from functools import cache
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from mmmono.core.errors import DataError

DECODER_VERSION = 2  # part of every recipe that depends on pixels; raised whenever they change

# What Pillow would hand to another program, or knows by its header alone.
_NOT_RASTER = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_SIXTEEN_BIT_FORMATS = {"JPEG2000", "PNG", "PPM"}  # their mode I holds values up to 65535
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ROWS = 256  # of a deep picture that are scaled at a time

# Pillow warns of large pictures and of broken EXIF, once for each place in its code: what counts is the picture or the
# DataError that comes of it.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_image(data: bytes) -> Image.Image:
    """The picture in a file's bytes as RGB, 8 bits a channel; see the module for what is decided.

    Args:
        data: a whole file of any raster format that Pillow reads.

    Raises:
        DataError: it is no picture, broken, cut off, larger than 179 million pixels, or its values have no scale.
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
        raise DataError(f"unreadable image ({'of no known format' if data else 'an empty file'})") from error
    except Exception as error:  # Pillow's decoders raise whatever their format's parser does
        cut = isinstance(error, OSError) and "truncated" in str(error)
        raise DataError(f"unreadable image ({'cut off' if cut else type(error).__name__})") from error


@cache
def _formats() -> list[str]:
    Image.init()
    return sorted(set(Image.ID) - _NOT_RASTER)


def _orientation(file: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1, which is upright, where there is none or it cannot be read."""
    try:
        return int(file.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # EXIF is a format of its own, broken in many pictures that are whole
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _scaled(image).convert("RGB")
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    if image.has_transparency_data:
        # Transparent pixels hold arbitrary colors; show them as a page would, on white.
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _scaled(image: Image.Image) -> Image.Image:
    """A gray picture of more than 8 bits, scaled to 8."""
    values = np.asarray(image)
    tags: Any = getattr(image, "tag_v2", {})
    unsigned = tags.get(ExifTags.Base.SampleFormat, (1,)) in (1, (1,))
    if image.mode == "I" and tags and unsigned:
        values = values.view(np.uint32)  # Pillow has no unsigned mode of 32 bits
    top = _top(image, values)
    levels = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _ROWS):
        part = values[start : start + _ROWS].astype(np.float64)
        levels[start : start + _ROWS] = np.rint(part * (255 / top))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):  # the value that stands for a hole
        levels[values == transparent] = 255
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:  # TIFF's WhiteIsZero
        levels = 255 - levels
    return Image.fromarray(levels)


def _top(image: Image.Image, values: np.ndarray[Any, Any]) -> float:
    """The value that stands for white. Raises DataError where nothing says which."""
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
    # A float picture is scaled to 1, or holds the levels of 8 or 16 bits; little more than 1 is none of these.
    if high <= 1:
        return 1
    if high < 2 or high > 65535:
        raise DataError("image of float values that fill neither 0 to 1, 0 to 255, nor 0 to 65535")
    return 255 if high <= 255 else 65535
