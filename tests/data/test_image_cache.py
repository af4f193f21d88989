"""Images that are kept on disk, over a source that counts what it is asked for."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmmono.core.errors import DataError
from mmmono.data import ImageTextPair, SkippedPair
from mmmono.data.disk_cache import LOCK, DiskCache
from mmmono.data.image_cache import ImageCache
from tests.fakes import ColorPairs

LARGE = 10**9


class CountingPairs(ColorPairs):
    """Noise with the bytes it came from; odd pairs are drawn, so that they have none."""

    remote = True

    def __init__(self, broken: Sequence[str] = ()) -> None:
        super().__init__((40,), broken=broken)
        self.asked: list[str] = []
        self.calls = 0

    def fetch_many(self, pairs: Sequence[tuple[str, str]]) -> Iterator[ImageTextPair | SkippedPair]:
        self.calls += 1
        for key, _ in pairs:
            self.asked.append(key)
            yield SkippedPair(key, "no connection") if key in self.broken else self.fetch(key)

    def fetch(self, key: str, locator: str = "") -> ImageTextPair:
        number = int(key.split("/")[1])
        pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        encoded = b"" if number % 2 else buffer.getvalue()
        return ImageTextPair(key, Image.fromarray(pixels), f"été {number}", {"label": "x"}, str(number), encoded)


def requests(*numbers: int) -> list[tuple[str, str]]:
    return [(f"0/{number}", str(number)) for number in numbers]


def kept(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != LOCK]


def check(items: Sequence[ImageTextPair | SkippedPair], *numbers: int) -> None:
    source = CountingPairs()
    for item, number in zip(items, numbers, strict=True):
        expected = source.fetch(f"0/{number}")
        assert isinstance(item, ImageTextPair)
        assert (item.key, item.caption, dict(item.labels), item.locator) == (
            expected.key, expected.caption, expected.labels, expected.locator,
        )  # fmt: skip
        assert item.image.tobytes() == expected.image.tobytes()


def test_a_second_analysis_fetches_nothing(tmp_path: Path) -> None:
    first, second = CountingPairs(), CountingPairs()
    check(list(ImageCache(first, tmp_path, LARGE).fetch_many(requests(5, 2, 9, 2))), 5, 2, 9, 2)
    check(list(ImageCache(second, tmp_path, LARGE).fetch_many(requests(2, 3, 5, 9, 4))), 2, 3, 5, 9, 4)
    assert second.asked == ["0/3", "0/4"]
    assert second.calls == 1
    assert ImageCache(second, tmp_path, LARGE).fetch("0/9").locator == "9"
    other = CountingPairs(broken=["0/1"])  # another source has another fingerprint
    list(ImageCache(other, tmp_path, LARGE).fetch_many(requests(2)))
    assert other.asked == ["0/2"]


def test_what_cannot_be_read_is_reported_and_asked_for_again(tmp_path: Path) -> None:
    source = CountingPairs(broken=["0/3"])
    cache = ImageCache(source, tmp_path, LARGE)
    for _ in range(2):
        items = list(cache.fetch_many(requests(2, 3)))
        check(items[:1], 2)
        assert items[1] == SkippedPair("0/3", "no connection")
    assert source.asked == ["0/2", "0/3", "0/3"]
    with pytest.raises(DataError, match="no connection"):
        cache.fetch("0/3")


@pytest.mark.parametrize("harm", ["cut", "changed", "empty", "nonsense"])
def test_files_that_are_broken_are_fetched_again(tmp_path: Path, harm: str) -> None:
    source = CountingPairs()
    cache = ImageCache(source, tmp_path, LARGE)
    list(cache.fetch_many(requests(1, 2, 4)))
    for file in kept(tmp_path):
        content = file.read_bytes()
        changed = content[:-40] + bytes([content[-40] ^ 1]) + content[-39:]
        file.write_bytes({"cut": content[:-1], "changed": changed, "empty": b"", "nonsense": b"x" * 99}[harm])
    check(list(cache.fetch_many(requests(1, 2, 4))), 1, 2, 4)
    assert sorted(source.asked) == sorted(["0/1", "0/2", "0/4"] * 2)
    check(list(cache.fetch_many(requests(1, 2, 4))), 1, 2, 4)
    assert len(source.asked) == 6


def test_what_was_not_used_for_longest_makes_room(tmp_path: Path) -> None:
    source = CountingPairs()
    roomy = ImageCache(source, tmp_path, LARGE)
    list(roomy.fetch_many(requests(*range(20))))
    for file in kept(tmp_path):
        os.utime(file, (0, 0))
    list(roomy.fetch_many(requests(3)))  # in use again
    size = sum(file.stat().st_size for file in kept(tmp_path))
    check(list(ImageCache(source, tmp_path, size // 2).fetch_many(requests(30, 31))), 30, 31)
    left = sum(file.stat().st_size for file in kept(tmp_path))
    assert left <= size // 2
    source.asked.clear()
    list(roomy.fetch_many(requests(3, 30, 31)))
    assert source.asked == []


def test_files_of_others_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    digest = "0123456789abcdef" * 2
    others = [
        tmp_path / name
        for name in ("notes.txt", "thesis/a.tex", "ab/cd/e", f"git/{digest[:2]}/{digest}0", f"x/ff/{digest}", digest)
    ]
    for file in others:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(20_000))
        os.utime(file, (0, 0))
    cache = DiskCache(tmp_path, 10_000, "blocks")
    half = tmp_path / "blocks" / digest[:2] / f".{digest}.1.1"  # of a process that was killed
    half.parent.mkdir(parents=True)
    half.write_bytes(bytes(20_000))
    for key in "abcdefghij":
        cache.write(key, bytes(2000))
    assert all(file.stat().st_size == 20_000 for file in others)
    assert not half.exists()
    assert 1 <= sum(key in cache for key in "abcdefghij") <= 5


def test_images_vanish_while_they_are_read(tmp_path: Path) -> None:
    source = CountingPairs()
    cache = ImageCache(source, tmp_path, LARGE)
    list(cache.fetch_many(requests(1, 2, 3)))
    found = cache.fetch_many(requests(1, 2, 3))
    items = [next(found)]
    for file in kept(tmp_path):
        file.unlink()
    check([*items, *found], 1, 2, 3)


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    check(list(ImageCache(CountingPairs(), tmp_path / "file", LARGE).fetch_many(requests(1, 2))), 1, 2)


def test_files_that_cannot_be_written_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a folder of another user, or on a disk that is only read: nobody may mark a file as used."""
    source = CountingPairs()
    cache = ImageCache(source, tmp_path, LARGE)
    list(cache.fetch_many(requests(1, 2)))
    source.asked.clear()

    def refused(path: object, *args: object) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(os, "utime", refused)
    check(list(cache.fetch_many(requests(1, 2))), 1, 2)
    assert source.asked == []


def _read_many(folder: Path, seed: int) -> int:
    cache = ImageCache(CountingPairs(), folder, 20_000)  # room for ten
    numbers = np.random.default_rng(seed).integers(0, 40, 60).tolist()
    check(list(cache.fetch_many(requests(*numbers))), *numbers)
    return len(numbers)


@pytest.mark.slow
def test_processes_share_the_folder(tmp_path: Path) -> None:
    with get_context("spawn").Pool(2) as pool:
        assert pool.starmap(_read_many, [(tmp_path, seed) for seed in range(4)]) == [60] * 4
    assert not [file for file in kept(tmp_path) if file.name.startswith(".")]  # none is left half written
