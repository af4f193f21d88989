"""The decoder, against numpy, over modes, formats and sizes, and against files that are broken on purpose."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import PIL
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmmono.core.errors import DataError
from mmmono.data.images import decode_image

Array = np.ndarray[Any, Any]
SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))  # height, width
SEEDS = st.integers(0, 999)


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> Array:
    image = decode_image(data)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def random_levels(shape: tuple[int, ...], seed: int, top: int = 255) -> Array:
    return np.random.default_rng(seed).integers(0, top + 1, shape)


def png(channels: Array) -> bytes:
    """A PNG of 16 bits a channel, written by hand: Pillow writes none in color."""
    height, width, count = channels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in channels)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[count], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


@settings(deadline=None, max_examples=50)
@given(SIZES, SEEDS, st.sampled_from(["PNG", "TIFF", "TIFF big-endian", "PPM", "JPEG2000"]))
def test_sixteen_bits_of_gray_are_divided_by_257(size: tuple[int, int], seed: int, format: str) -> None:
    values = random_levels(size, seed, 65535).astype(np.uint16)
    image = Image.fromarray(values)
    if format == "TIFF big-endian":
        image, format = Image.frombytes("I;16B", size[::-1], values.astype(">u2").tobytes()), "TIFF"
    found = decoded(encoded(image, format))
    assert np.abs(found - values[..., None] / 257).max() <= 0.5


@settings(deadline=None, max_examples=50)
@given(SIZES, SEEDS, st.sampled_from([2, 3, 4]))
def test_sixteen_bits_a_channel(size: tuple[int, int], seed: int, count: int) -> None:
    values = random_levels((*size, count), seed, 65535)
    found = decoded(png(values))
    colors = np.repeat(values[..., :1], 3, 2) if count == 2 else values[..., :3]
    alpha = values[..., -1:] / 65535 if count in (2, 4) else 1.0
    # Pillow keeps the upper 8 of 16 bits in color: less than one level below the quotient, in the alpha channel too.
    assert np.abs(found - (colors * alpha + 65535 * (1 - alpha)) / 257).max() < (1 if count == 3 else 2.6)


def test_a_ramp_from_black_to_white_is_no_white_image() -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).round().astype(np.uint16), (4, 1))
    for data in (encoded(Image.fromarray(ramp), "PNG"), encoded(Image.fromarray((ramp / 65535).astype("f4")), "TIFF")):
        assert decoded(data).mean() == pytest.approx(127.5, abs=0.1)
    hole = encoded(Image.fromarray(ramp), "PNG", transparency=int(ramp[0, 3]))
    assert decoded(hole)[:, 3].min() == 255


@pytest.mark.parametrize(
    ("dtype", "top"),
    [("f4", 1), ("f4", 255), ("f4", 65535), ("i4", 255), ("i4", 65535), ("i4", 2**31 - 1), ("u4", 2**32 - 1)],
)
def test_deep_values_are_scaled_by_the_range_they_fill(dtype: str, top: int) -> None:
    values = (np.linspace(0, 1, 30).reshape(5, 6) * top).astype(dtype)
    data = encoded(Image.fromarray(values.view("i4") if dtype == "u4" else values), "TIFF")
    if dtype == "u4":  # Pillow writes integers of 32 bits as signed ones only
        signed, unsigned = (struct.pack("<HHIH", 339, 3, 1, kind) for kind in (2, 1))
        assert signed in data
        data = data.replace(signed, unsigned)
    expected = values.astype(np.float64) * 255 / top
    assert np.abs(decoded(data) - expected[..., None]).max() <= 0.51


def test_white_is_zero_in_some_tiffs() -> None:
    values = np.arange(0, 65535, 3000, dtype=np.uint16).reshape(2, 11)
    found = decoded(encoded(Image.fromarray(values), "TIFF", tiffinfo={262: 0}))
    assert np.abs(found - (255 - values[..., None] / 257)).max() <= 0.51


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[-1, 300]], "i4"), "below 0"),
        (np.array([[0.0, np.nan]], "f4"), "not all finite"),
        (np.array([[0.0, np.inf]], "f4"), "not all finite"),
        (np.array([[-0.5, 1.0]], "f4"), "below 0"),
        (np.array([[0.0, 1.2]], "f4"), "neither 0 to 1"),
        (np.array([[0.0, 1e9]], "f4"), "neither 0 to 1"),
    ],
)
def test_values_without_a_scale_are_reported(values: Array, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        decode_image(encoded(Image.fromarray(values), "TIFF"))


@settings(deadline=None, max_examples=50)
@given(SIZES, SEEDS, st.sampled_from(["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV"]))
def test_modes_without_alpha_are_as_pillow_converts_them(size: tuple[int, int], seed: int, mode: str) -> None:
    assume(mode != "YCbCr" or int(PIL.__version__.partition(".")[0]) >= 13)  # older ones write TIFFs they cannot read
    image = Image.fromarray(random_levels((*size, 3), seed).astype(np.uint8)).convert(mode)
    for format in {"HSV": (), "CMYK": ("TIFF",), "YCbCr": ("TIFF",)}.get(mode, ("PNG", "TIFF")):
        assert (decoded(encoded(image, format)) == np.asarray(image.convert("RGB"))).all()


@settings(deadline=None, max_examples=50)
@given(SIZES, SEEDS, st.sampled_from(["RGBA", "LA", "PA"]))
def test_alpha_is_shown_on_white(size: tuple[int, int], seed: int, mode: str) -> None:
    image = Image.fromarray(random_levels((*size, 4), seed).astype(np.uint8)).convert(mode)
    shown = np.asarray(image.convert("RGBA")).astype(float)
    alpha = shown[..., 3:] / 255
    expected = shown[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(decoded(encoded(image, "TIFF")) - expected).max() <= 1.01
    if mode != "PA":
        assert np.abs(decoded(encoded(image, "PNG")) - expected).max() <= 1.01


def test_a_transparent_palette_entry_or_color_is_white() -> None:
    palette = Image.new("P", (4, 2), 1)
    palette.putpalette([0, 0, 0, 200, 10, 10])
    gray, bits, color = Image.new("L", (4, 2), 7), Image.new("1", (4, 2), 0), Image.new("RGB", (4, 2), (1, 2, 3))
    for image, hole in ((palette, 1), (palette, bytes([255, 0])), (gray, 7), (bits, 0), (color, (1, 2, 3))):
        assert decoded(encoded(image, "PNG", transparency=hole)).min() == 255
    assert decoded(encoded(palette, "GIF", transparency=1)).min() == 255
    assert (decoded(encoded(palette, "GIF"))[0, 0] == (200, 10, 10)).all()


@settings(deadline=None, max_examples=50)
@given(SIZES, SEEDS, st.integers(0, 9), st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF"]))
def test_images_stand_upright(size: tuple[int, int], seed: int, orientation: int, format: str) -> None:
    """EXIF's eight orientations say where the first row and the first column of the file belong."""
    stored = random_levels((*size, 3), seed).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if format == "WEBP" else {"quality": 100, "subsampling": 0} if format == "JPEG" else {}
    data = encoded(Image.fromarray(stored), format, exif=exif, **options)
    plain = decoded(encoded(Image.fromarray(stored), format, **options))
    upright = {
        2: plain[:, ::-1], 3: plain[::-1, ::-1], 4: plain[::-1], 5: plain.swapaxes(0, 1),
        6: plain.swapaxes(0, 1)[:, ::-1], 7: plain[::-1, ::-1].swapaxes(0, 1), 8: plain.swapaxes(0, 1)[::-1],
    }.get(orientation, plain)  # fmt: skip
    assert (decoded(data) == upright).all()


def test_broken_exif_leaves_an_image_as_it_is() -> None:
    image = Image.fromarray(random_levels((5, 7, 3), 0).astype(np.uint8))
    for exif in (b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b""):
        assert (decoded(encoded(image, "PNG", exif=exif)) == np.asarray(image)).all()


@pytest.mark.parametrize("format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_animations_and_pages_give_their_first_image(format: str) -> None:
    frames = [Image.new("RGB", (6, 5), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert (decoded(data) == (255, 0, 0)).all()


def test_what_is_no_image_or_too_much_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoded(Image.fromarray(random_levels((64, 64, 3), 0).astype(np.uint8)), "PNG")
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    for data, reason in (
        (b"", "an empty file"),
        (b"<html>404</html>", "of no known format"),
        (postscript, "of no known format"),
        (whole[: len(whole) // 2], "cut off"),
    ):
        with pytest.raises(DataError, match=reason):
            decode_image(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match="more than 179 million pixels"):
        decode_image(whole)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)  # Pillow would warn; warnings are errors here
    assert decode_image(whole).size == (64, 64)


@settings(deadline=None, max_examples=50)
@given(SEEDS, st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000"]), st.data())
def test_broken_files_give_an_image_or_a_reason(seed: int, format: str, data: st.DataObject) -> None:
    whole = encoded(Image.fromarray(random_levels((12, 9, 3), seed).astype(np.uint8)), format)
    broken = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        if place < len(broken):
            broken[place] ^= data.draw(st.integers(1, 255))
    reason = ""
    try:
        assert decode_image(bytes(broken)).mode == "RGB"
    except DataError as error:
        reason = str(error)
    assert "\n" not in reason
