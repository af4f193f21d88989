"""Reference pictures: files or pairs of the data set, as they are or in the style of a sketch or an oil painting.

The paper's references are a photograph, a sketch and an oil painting of a horse. Styles of one picture differ in nothing
but the style, so that what is injected with them can be told from what they show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageFilter, ImageOps
from scipy.ndimage import gaussian_filter

from mmmono.case_studies.pictures import find_picture
from mmmono.core.errors import ConfigError, DataError
from mmmono.data import PairSource

SIDE = 224  # pixels


@dataclass(frozen=True)
class Reference:
    """A reference picture.

    Attributes:
        name: what tables and files call it.
        picture: square, RGB.
        key: of its pair, where it is one of the data set's.
    """

    name: str
    picture: Image.Image
    key: str | None


def sketch(picture: Image.Image) -> Image.Image:
    """A pencil drawing: gray, divided by its own blur (color dodge), so that only edges stay dark."""
    gray = np.asarray(picture.convert("L"), dtype=np.float64)
    blurred = gaussian_filter(gray, picture.width / 100)
    drawn = np.clip(255 * (gray + 1) / (blurred + 1), 0, 255)
    return Image.fromarray(drawn.astype(np.uint8)).convert("RGB")


def oil_painting(picture: Image.Image) -> Image.Image:
    """Dabs of color on a warm ground: brush strokes of seeded noise, then the commonest color of each neighborhood."""
    rng = np.random.default_rng(0)
    side = picture.size[::-1]
    strokes = sum(gaussian_filter(rng.standard_normal(side), s) * np.sqrt(s[0] * s[1]) for s in ((2, 9), (7, 2)))
    light = np.clip(0.5 + 0.9 * np.asarray(strokes), 0, 1)[..., None]
    ground = (1 - light) * np.array([196, 140, 70]) + light * np.array([250, 214, 140])
    painted = ImageChops.multiply(picture, Image.fromarray(ground.astype(np.uint8)))
    return painted.filter(ImageFilter.ModeFilter(max(3, picture.width // 32)))


STYLES: dict[str, Callable[[Image.Image], Image.Image]] = {"sketch": sketch, "oil_painting": oil_painting}


def read_reference(entry: str, source: PairSource, locators: Mapping[str, str] | None = None) -> Reference:
    """The picture an entry of `references` names, `@` and a style or nothing; see `find_picture`.

    Raises:
        ConfigError: the style is unknown.
        DataError: there is no such picture, or it is not readable.
    """
    named, _, style = entry.partition("@")
    if style and style not in STYLES:
        raise ConfigError(f"references: {entry} asks for style {style!r}: choose {', '.join(STYLES)}, or none")
    try:
        found = find_picture(named, source, locators)
    except DataError as error:
        raise DataError(f"references: {error}") from error
    picture = ImageOps.fit(found.image.convert("RGB"), (SIDE, SIDE))
    if style:
        picture = STYLES[style](picture)
    name = found.key or Path(named).stem
    return Reference("_".join(part for part in (_file_name(name), style) if part), picture, found.key)


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "_" for c in name)
