"""Pictures that a setting names: an image file, a drawing of OpenMoji, or a pair of the dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

from mmmono.core.errors import DataError
from mmmono.data import OpenMojiPairs, PairSource
from mmmono.data.images import decode_image

OPENMOJI = "openmoji:"


@dataclass(frozen=True)
class Picture:
    """A picture with its caption, which an image file has not."""

    image: Image.Image
    caption: str


def find_picture(name: str, source: PairSource, metadata: pd.DataFrame) -> Picture:
    """The picture called so.

    Args:
        name: path of an image file, `openmoji:<hexcode>`, or key of a pair.
        source: where pairs are fetched from.
        metadata: of the pairs, says where they lie.

    Raises:
        DataError: it is none of these, or no readable image.
    """
    if name.startswith(OPENMOJI):
        pair = OpenMojiPairs().fetch(name.removeprefix(OPENMOJI))
        return Picture(pair.image, pair.caption)
    if Path(name).is_file():
        try:
            return Picture(decode_image(Path(name).read_bytes()), "")
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
    known = metadata[metadata["key"] == name]
    if known.empty:
        raise DataError(f"{name!r} is neither an image file nor the key of a pair of this dataset: give one of the two")
    row = known.iloc[0]
    pair = source.fetch(name, row.get("locator", ""))
    return Picture(pair.image, pair.caption)
