"""Images that a setting names: an image file, an OpenMoji drawing, or the image of a pair of the dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from mmmono.core.errors import DataError
from mmmono.data import OpenMojiPairs, PairSource
from mmmono.data.images import decode_image

OPENMOJI = "openmoji:"


@dataclass(frozen=True)
class CaptionedImage:
    """An image and the pair it belongs to.

    Attributes:
        image: RGB image.
        caption: caption of its pair; empty for an image file.
        key: key of its pair; None for an image file.
    """

    image: Image.Image
    caption: str
    key: str | None = None


def find_image(name: str, source: PairSource, locators: Mapping[str, str] | None = None) -> CaptionedImage:
    """Load the image with a given name.

    Args:
        name: path of an image file, `openmoji:<hexcode>` (behind it `-line`: without colors), or key of a pair.
        source: source to fetch pairs from.
        locators: known locators of the source's pairs by key; the source searches for a pair without one.

    Raises:
        DataError: the name is none of these, or the image is not readable.
    """
    path = Path(name)
    if name.startswith(OPENMOJI):
        source, name = OpenMojiPairs(style="both"), name.removeprefix(OPENMOJI)
    elif path.is_file():
        try:
            return CaptionedImage(decode_image(path.read_bytes()), "")
        except DataError as error:
            raise DataError(f"{name}: {error}; give another image") from error
    elif path.suffix.lower() in Image.registered_extensions():
        raise DataError(f"there is no file {name}: give the path of an image, or the key of a pair")
    try:
        pair = source.fetch(name, (locators or {}).get(name, ""))
    except DataError as error:
        raise DataError(f"{name} is no file, and {error}") from error
    return CaptionedImage(pair.image, pair.caption, name)
