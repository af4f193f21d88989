"""Reading many pairs again, as every source does it that has no faster way."""

import io
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmmono.core.errors import DataError
from mmmono.data import ImageTextPair, SkippedPair, WebDatasetPairs
from mmmono.data.sample_pairs import SampleReading
from tests.data.test_webdataset import write_tar
from tests.fakes import ColorPairs


class SlowPairs(ColorPairs):
    """Pairs whose fetches take the longer, the earlier they were asked for; it counts those under way."""

    def __init__(self) -> None:
        super().__init__((40,), broken=("0/3",))
        self.fetched: list[str] = []
        self._lock = threading.Lock()

    def fetch(self, key: str, locator: str = "") -> ImageTextPair:
        with self._lock:
            self.fetched.append(key)
        time.sleep(0.02 if key.endswith("0") else 0.001)
        if key in self.broken:
            raise DataError(f"{key} is broken")
        if key == "0/4":
            raise ConnectionResetError("reset by peer")
        return super().fetch(key, locator)


def test_in_the_requested_order_and_broken_ones_are_reported() -> None:
    keys = [f"0/{i}" for i in (30, 3, 0, 4, 7, 7, 20)]
    items = list(SlowPairs().fetch_many([(key, "") for key in keys]))
    assert [item.key for item in items] == keys
    reasons = {item.key: item.reason for item in items if isinstance(item, SkippedPair)}
    assert reasons == {"0/3": "0/3 is broken", "0/4": "reset by peer"}
    assert list(SlowPairs().fetch_many([])) == []


def test_only_a_few_are_read_ahead() -> None:
    source = SlowPairs()
    found = source.fetch_many([(f"0/{i}", "") for i in range(5, 40)])
    next(found)
    time.sleep(0.1)
    ahead = len(source.fetched)
    assert 1 < ahead < 35
    found.close()  # type: ignore[attr-defined]
    time.sleep(0.05)
    assert len(source.fetched) == ahead


def test_faults_of_the_program_are_not_taken_for_broken_images() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        list(ColorPairs().fetch_many([("not/numbers", "")]))


def test_few_large_images_of_shards_are_in_memory_together(tmp_path: Path) -> None:
    """Files of noise, which no format makes smaller, of which a window of bulk reading holds but some."""
    files: list[tuple[str, bytes]] = []
    for i in range(24):
        noise = np.random.default_rng(i).integers(0, 256, (700, 1000, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, "BMP")
        files += [(f"{i:02d}.bmp", buffer.getvalue()), (f"{i:02d}.txt", b"noise")]
    shards = WebDatasetPairs(str(write_tar(tmp_path / "large-0.tar", files)), SampleReading(image_keys=("bmp",)))
    pairs = [item for item in shards.read(0) if isinstance(item, ImageTextPair)]
    started: list[int] = []
    read = shards.opener.read

    def counted(shard: str, start: int, end: int) -> bytes:
        started.append(end - start)
        return read(shard, start, end)

    shards.opener.read = counted  # type: ignore[method-assign]
    found = shards.fetch_many([(pair.key, pair.locator) for pair in pairs])
    first = next(found)
    assert isinstance(first, ImageTextPair)
    assert first.image.tobytes() == pairs[0].image.tobytes()
    time.sleep(0.3)
    assert sum(started) <= 2 * (16 + 2.2) * 2**20  # two windows, each closed by the file that fills it
    assert [item.key for item in found] == [pair.key for pair in pairs[1:]]


def test_a_disk_that_fails_skips_the_images_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "PNG")
    shards = WebDatasetPairs(str(write_tar(tmp_path / "s-0.tar", [("1.png", buffer.getvalue()), ("1.txt", b"one")])))
    pair = next(iter(shards.read(0)))
    assert isinstance(pair, ImageTextPair)

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(shards.opener, "open", lambda shard, start=0: Failing())
    (item,) = shards.fetch_many([(pair.key, pair.locator)])
    assert isinstance(item, SkippedPair)
    assert "s-0.tar cannot be read" in item.reason
    assert "Input/output error" in item.reason
