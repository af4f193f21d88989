"""Reference pictures: files or pairs of the data set, as they are or in the style of a sketch or an oil painting.

The paper's references are a photograph, a sketch and an oil painting of a horse. Styles of one picture differ in nothing
but the style, so that what is injected with them can be told from what they show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageFilter, ImageOps
from scipy.ndimage import gaussian_filter

from mmmono.core.errors import ConfigError, DataError
from mmmono.data import PairSource
from mmmono.data.images import decode_image

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


def read_reference(entry: str, source: PairSource) -> Reference:
    """The picture an entry of `references` names: the path of a file or the key of a pair, `@` and a style or nothing.

    Raises:
        ConfigError: the style is unknown, or there is neither such a file nor such a pair.
        DataError: the file is no readable picture.
    """
    named, _, style = entry.partition("@")
    if style and style not in STYLES:
        raise ConfigError(f"references: {entry} asks for style {style!r}: choose {', '.join(STYLES)}, or none")
    path, key = Path(named), None
    if path.is_file():
        try:
            picture = decode_image(path.read_bytes())
        except DataError as error:
            raise DataError(f"references: {named}: {error}; give another picture") from error
        name = path.stem
    elif path.suffix.lower() in Image.registered_extensions():
        raise ConfigError(f"references: there is no file {named}: give the path of a picture, or the key of a pair")
    else:
        try:
            picture, key, name = source.fetch(named).image, named, named
        except DataError as error:
            raise ConfigError(f"references: {named} is no file, and {error}") from error
    picture = ImageOps.fit(picture.convert("RGB"), (SIDE, SIDE))
    if style:
        picture = STYLES[style](picture)
    return Reference("_".join(part for part in (_file_name(name), style) if part), picture, key)


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "_" for c in name)
