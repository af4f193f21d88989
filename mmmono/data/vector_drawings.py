"""Renders vector drawings."""

from __future__ import annotations

import io

from PIL import Image


def render(svg: str, size: int) -> Image.Image:
    """Render an SVG on white, `size` pixels wide and high, in RGB."""
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, background="#ffffff")
    return Image.open(io.BytesIO(bytes(png))).convert("RGB")
