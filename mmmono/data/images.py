"""Decoding of images, with one clear reason where it fails."""

from __future__ import annotations

import io

from PIL import Image

from mmmono.core.errors import DataError


def decode_image(data: bytes) -> Image.Image:
    """The whole image as RGB. Raises DataError saying why if it is broken, cut off or no image."""
    try:
        with Image.open(io.BytesIO(data)) as file:
            file.load()
            image: Image.Image = file
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                # Transparent pixels hold arbitrary colors; show them as a page would, on white.
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return image.convert("RGB")
    except Exception as error:  # Pillow's decoders raise whatever their format's parser does
        raise DataError(f"unreadable image ({type(error).__name__})") from error
