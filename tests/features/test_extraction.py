import json
import multiprocessing as mp
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mmmono.core.errors import ConfigError, DataError, MmmonoError, ModelError
from mmmono.data import ImageTextPair
from mmmono.features import FeatureStore, extract_features, reading
from mmmono.features.losses import Allowance
from tests.fakes import ColorEncoder, ColorPairs


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_every_pair_in_order_whatever_the_batch(tmp_path: Path, workers: int, batch_size: int) -> None:
    source, encoder = ColorPairs(), ColorEncoder()
    manifest = extract_features(source, encoder, tmp_path, batch_size=batch_size, workers=workers)
    store = FeatureStore(tmp_path)
    pairs = [source.fetch(f"{part}/{i}") for part, size in enumerate(source.sizes) for i in range(size)]
    assert store.metadata()["key"].tolist() == [pair.key for pair in pairs]
    assert store.metadata()["caption"].tolist() == [pair.caption for pair in pairs]
    assert store.metadata()["red"].tolist() == [pair.labels["red"] for pair in pairs]
    expected = np.array([[*np.asarray(pair.image)[0, 0] / 256, 1] for pair in pairs])
    np.testing.assert_allclose(store.read("image", 0, len(store)).numpy(), expected, atol=1e-3)
    assert (manifest.count, manifest.dim, manifest.skipped, manifest.model) == (15, 4, 0, "color-encoder")


def test_finished_parts_are_not_read_again(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    extract_features(ColorPairs(), ColorEncoder(), whole)

    class Dies(ColorPairs):
        def read(self, part: int):  # type: ignore[no-untyped-def]
            if part == 2:
                raise KeyboardInterrupt
            yield from super().read(part)

    resumed = tmp_path / "resumed"
    with pytest.raises(KeyboardInterrupt):
        extract_features(Dies(), ColorEncoder(), resumed)
    assert not (resumed / "manifest.json").exists()
    source, encoder = ColorPairs(), ColorEncoder()
    extract_features(source, encoder, resumed)
    assert source.reads == [2]
    assert sum(encoder.batches) == source.sizes[2]
    for file in sorted(whole.rglob("*_*.npy")):
        assert file.read_bytes() == (resumed / file.relative_to(whole)).read_bytes()
    assert json.loads((whole / "manifest.json").read_text()) == json.loads((resumed / "manifest.json").read_text())


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a store, with its bytes."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.*"))}


@pytest.mark.parametrize("limit", [1, 7, 9, 15, 40])
def test_limit_takes_the_first_pairs_whatever_the_workers(tmp_path: Path, limit: int) -> None:
    broken = ["0/2", "1/0", "1/4"]
    sizes = (4, 5, 3, 6, 1, 0, 9)
    for workers in (0, 1, 3):
        source = ColorPairs(sizes, broken, limit=limit)
        extract_features(source, ColorEncoder(), tmp_path / str(workers), batch_size=4, workers=workers)
    keys = [key for part, size in enumerate(sizes) for i in range(size) if (key := f"{part}/{i}") not in broken]
    assert FeatureStore(tmp_path / "0").metadata()["key"].tolist() == keys[:limit]
    assert contents(tmp_path / "0") == contents(tmp_path / "1") == contents(tmp_path / "3")


class ByProcess(ColorPairs):
    """Says in the labels which process read a pair."""

    def fetch(self, key: str, locator: str = "") -> ImageTextPair:
        pair = super().fetch(key, locator)
        return replace(pair, labels={"process": str(os.getpid())})


def test_limit_is_read_by_several_workers(tmp_path: Path) -> None:
    extract_features(ByProcess((3,) * 9, limit=25), ColorEncoder(), tmp_path, workers=4)
    assert FeatureStore(tmp_path).metadata()["process"].nunique() >= 4


def test_parts_of_a_known_size_are_read_together_from_the_beginning(tmp_path: Path) -> None:
    class Sized(ByProcess):
        def count_samples(self, part: int, most: int) -> int:
            return min(most, self.sizes[part])

    extract_features(Sized((3,) * 4, limit=12), ColorEncoder(), tmp_path / "a", workers=2)
    assert FeatureStore(tmp_path / "a").metadata()["process"].value_counts().tolist() == [6, 6]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_part_that_breaks_off_is_named_and_alone_read_again(tmp_path: Path, workers: int) -> None:
    source, whole = ColorPairs((7, 5, 9, 3), cut={1: 3, 3: 0}), ColorPairs((7, 5, 9, 3))
    with pytest.raises(
        DataError, match=r"2 of 4 shards with about 16 pairs .*part-1, part-3 is cut off.*reads only"
    ) as raised:
        extract_features(source, ColorEncoder(), tmp_path / "a", workers=workers, max_skipped=1)
    assert "\n" not in str(raised.value)
    assert "extraction.max_broken_shards=2" in str(raised.value)
    assert not (tmp_path / "a" / "manifest.json").exists()
    extract_features(whole, ColorEncoder(), tmp_path / "a")
    assert whole.reads == [1, 3]
    extract_features(ColorPairs((7, 5, 9, 3)), ColorEncoder(), tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_broken_parts_may_be_gone_without_and_the_manifest_says_so(tmp_path: Path) -> None:
    source = ColorPairs((7, 5, 9, 3), cut={1: 3})
    manifest = extract_features(source, ColorEncoder(), tmp_path, max_broken_shards=1)
    assert (manifest.count, manifest.skipped, manifest.missing) == (19, 0, 6)
    assert manifest.broken == {"part-1": "is cut off"}
    assert FeatureStore(tmp_path).manifest == manifest
    assert not FeatureStore(tmp_path).metadata()["key"].str.startswith("1/").any()
    Allowance(max_broken_shards=1).check(manifest)
    with pytest.raises(DataError, match=r"without 1 shards .*part-1.*\+force=true"):
        Allowance().check(manifest)


def test_reuse_is_held_to_a_stricter_limit_on_skipping(tmp_path: Path) -> None:
    manifest = extract_features(ColorPairs(broken=["0/1"]), ColorEncoder(), tmp_path)
    Allowance().check(manifest)
    with pytest.raises(DataError, match=r"1 of 15 pairs .*max_skipped=0 "):
        Allowance(max_skipped=0).check(manifest)


@pytest.mark.parametrize("limit", [5, 10, 11, 14])
def test_a_break_behind_the_limit_does_not_matter_and_one_before_it_does(tmp_path: Path, limit: int) -> None:
    for workers in (0, 3):
        folder = tmp_path / str(workers)
        source = ColorPairs((7, 5, 9, 3), cut={1: 4, 3: 0}, limit=limit)
        if limit <= 10:
            extract_features(source, ColorEncoder(), folder, batch_size=3, workers=workers)
            assert len(FeatureStore(folder)) == limit
            continue
        with pytest.raises(DataError, match="1 of 4 shards .*part-1 is cut off"):
            extract_features(source, ColorEncoder(), folder, batch_size=3, workers=workers)
        mended = ColorPairs((7, 5, 9, 3), limit=limit)
        extract_features(mended, ColorEncoder(), folder, batch_size=3, workers=0)
        assert 0 not in mended.reads
        keys = [f"{part}/{i}" for part, size in enumerate(mended.sizes) for i in range(size)]
        assert FeatureStore(folder).metadata()["key"].tolist() == keys[:limit]


def test_a_gap_that_is_filled_later_moves_the_limit(tmp_path: Path) -> None:
    sizes = (7, 5, 9)
    with pytest.raises(KeyboardInterrupt):
        extract_features(
            Interrupted(sizes, cut={0: 2}, limit=18), ColorEncoder(), tmp_path, batch_size=3, max_broken_shards=1
        )
    extract_features(ColorPairs(sizes, limit=18), ColorEncoder(), tmp_path, batch_size=3)
    keys = [f"{part}/{i}" for part, size in enumerate(sizes) for i in range(size)]
    assert FeatureStore(tmp_path).metadata()["key"].tolist() == keys[:18]


class Interrupted(ColorPairs):
    def read(self, part: int):  # type: ignore[no-untyped-def]
        yield from super().read(part)
        if part == 2:
            raise KeyboardInterrupt


def test_skipped_pairs_are_named_in_the_manifest(tmp_path: Path) -> None:
    manifest = extract_features(ColorPairs(broken=["0/0", "1/4", "2/1", "2/2"]), ColorEncoder(), tmp_path)
    assert (manifest.reasons, manifest.examples) == ({"broken": 4}, {"broken": ["0/0", "1/4", "2/1"]})


class Fails(ColorPairs):
    error: BaseException = DataError("cannot reach http://x/y.tar (refused): try again later")

    def read(self, part: int):  # type: ignore[no-untyped-def]
        if part == 1:
            raise self.error
        yield from super().read(part)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("error", [DataError("one\u2026 line"), ConfigError("x=1"), ModelError("m")])
def test_errors_come_out_of_workers_as_they_are(tmp_path: Path, workers: int, error: MmmonoError) -> None:
    source = Fails()
    source.error = error
    with pytest.raises(type(error)) as raised:
        extract_features(source, ColorEncoder(), tmp_path, workers=workers)
    assert str(raised.value) == str(error)


class Killed(ColorPairs):
    def read(self, part: int):  # type: ignore[no-untyped-def]
        yield from super().read(part)
        if part == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_one_line_and_finished_parts_are_kept(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="was killed, most likely for want of memory: lower extraction.workers"):
        extract_features(Killed((4, 4, 4, 4)), ColorEncoder(), tmp_path, workers=2)
    extract_features(ColorPairs((4, 4, 4, 4)), ColorEncoder(), tmp_path)
    assert len(FeatureStore(tmp_path)) == 16


def test_without_room_in_shared_memory_batches_take_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract_features(ColorPairs(), ColorEncoder(), tmp_path / "a", workers=2)
    kinds: list[type] = []

    class Watched(ColorEncoder):
        def encode_image(self, images: torch.Tensor) -> torch.Tensor:
            kinds.append(type(images))
            return super().encode_image(images)

    small = SimpleNamespace(free=1000)
    monkeypatch.setattr("mmmono.features.reading.shutil.disk_usage", lambda _: small)
    encoder = ColorEncoder()
    assert not reading._fits_shared_memory(2, reading.PartReader(ColorPairs(), [0], encoder, encoder.preprocess, 32))
    extract_features(ColorPairs(), Watched(), tmp_path / "b", workers=2)
    assert set(kinds) == {torch.Tensor}
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare program here")
def test_a_container_with_little_shared_memory(tmp_path: Path) -> None:
    """64 kB of it, as a namespace of its own lets us have: without the other way this ends in a bus error."""
    script = (
        "mount -t tmpfs -o size=64k tmpfs /dev/shm || exit 77\n"
        f"exec {sys.executable} -c 'from tests.features.test_extraction import _extract_large; _extract_large()' {tmp_path}"
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("this machine allows no mount namespaces")
    assert done.returncode == 0, done.stderr
    assert len(FeatureStore(tmp_path)) == 60


def _extract_large() -> None:
    extract_features(LargePairs((20, 20, 20)), ColorEncoder(), Path(sys.argv[1]), batch_size=20, workers=2)


class LargePairs(ColorPairs):
    def fetch(self, key: str, locator: str = "") -> ImageTextPair:
        pair = super().fetch(key, locator)
        return replace(pair, image=pair.image.resize((64, 64)))


@pytest.mark.parametrize(
    "setting",
    [
        {"dtype": "bfloat16"}, {"dtype": "int8"}, {"dtype": "float64"}, {"precision": "64"}, {"workers": -1},
        {"batch_size": 0}, {"max_skipped": 1.5}, {"max_skipped": -0.1}, {"max_broken_shards": -1},
        {"resize": "lanczos"}, {"resize": "torch"},  # the encoder of this test resizes in a way of its own
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused_before_anything_is_read(tmp_path: Path, setting: dict[str, Any]) -> None:
    source = ColorPairs()
    with pytest.raises(ConfigError, match=f"extraction.{next(iter(setting))}="):
        extract_features(source, ColorEncoder(), tmp_path, **setting)
    assert source.reads == []
    with pytest.raises(ConfigError, match=r"dataset\.limit=-1"):
        extract_features(ColorPairs(limit=-1), ColorEncoder(), tmp_path)


def test_labels_take_no_column_and_strings_are_always_written(tmp_path: Path) -> None:
    class Odd(ColorPairs):
        def fetch(self, key: str, locator: str = "") -> ImageTextPair:
            pair = super().fetch(key, locator)
            return replace(pair, labels={"key": "taken", "caf\udce9": "lone \ud800"})

    extract_features(Odd(), ColorEncoder(), tmp_path)
    metadata = FeatureStore(tmp_path).metadata()
    assert metadata["key"].tolist()[0] == "0/0"
    assert metadata[r"caf\xe9"].tolist()[0] == r"lone \ud800"


def test_broken_pairs_are_skipped_and_counted(tmp_path: Path) -> None:
    manifest = extract_features(ColorPairs(broken=["0/0", "1/4"]), ColorEncoder(), tmp_path)
    assert (manifest.count, manifest.skipped, manifest.reasons) == (13, 2, {"broken": 2})
    assert "0/0" not in set(FeatureStore(tmp_path).metadata()["key"])


def test_too_many_broken_pairs_fail_with_the_reasons(tmp_path: Path) -> None:
    source = ColorPairs(parts=(40,), broken=[f"0/{i}" for i in range(20)])
    with pytest.raises(DataError, match=r"20 of 40 pairs .*20 × broken"):
        extract_features(source, ColorEncoder(), tmp_path)
    with pytest.raises(DataError, match="1 of 15"):
        extract_features(ColorPairs(broken=["2/2"]), ColorEncoder(), tmp_path / "strict", max_skipped=0)


def test_a_source_without_a_readable_pair_fails(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not one pair"):
        extract_features(ColorPairs(parts=(2,), broken=["0/0", "0/1"]), ColorEncoder(), tmp_path)


def test_a_part_without_a_readable_pair_leaves_no_hole(tmp_path: Path) -> None:
    extract_features(ColorPairs(broken=[f"1/{i}" for i in range(5)]), ColorEncoder(), tmp_path)
    store = FeatureStore(tmp_path)
    assert len(store) == 10
    assert store.metadata()["key"].iloc[7] == "2/0"


def test_embeddings_that_are_not_finite_name_the_pair(tmp_path: Path) -> None:
    class Broken(ColorEncoder):
        def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
            embeddings = super().encode_text(tokens)
            embeddings[1, 0] = float("nan")
            return embeddings

    with pytest.raises(ModelError, match="text embedding of 0/1 in part-0"):
        extract_features(ColorPairs(), Broken(), tmp_path)
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize("scale", [1e6, 1e-9])
def test_embeddings_that_the_stored_type_cannot_hold_name_the_remedy(tmp_path: Path, scale: float) -> None:
    class Scaled(ColorEncoder):
        def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
            return (super().encode_text(tokens).abs() + 1) * scale

    with pytest.raises(ModelError, match=r"the text embedding of \S+ .* into float16, .* set extraction.dtype=float32"):
        extract_features(ColorPairs(), Scaled(), tmp_path / "half")
    assert extract_features(ColorPairs(), Scaled(), tmp_path / "single", dtype="float32").count == 15


class SlowPairs(ColorPairs):
    def read(self, part: int):  # type: ignore[no-untyped-def]
        for item in super().read(part):
            time.sleep(0.05)
            yield item


def _extract_slowly(directory: str) -> None:
    extract_features(SlowPairs(), ColorEncoder(), Path(directory), batch_size=2)


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_with_whole_shards(tmp_path: Path) -> None:
    process = mp.get_context("spawn").Process(target=_extract_slowly, args=(str(tmp_path),))
    process.start()
    deadline = time.monotonic() + 240
    while not (tmp_path / "reports" / "0.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (tmp_path / "manifest.json").exists()
    finished = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*_0.*")}
    source = ColorPairs()
    extract_features(source, ColorEncoder(), tmp_path)
    assert 0 not in source.reads
    assert {file: file.stat().st_mtime_ns for file in finished} == finished
    whole = tmp_path / "whole"
    extract_features(ColorPairs(), ColorEncoder(), whole)
    assert FeatureStore(tmp_path).manifest == FeatureStore(whole).manifest


def _extract_until_interrupted() -> None:
    try:
        extract_features(SlowPairs((40, 40)), ColorEncoder(), Path(sys.argv[1]), batch_size=2, workers=2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)


@pytest.mark.slow
def test_an_interrupt_is_no_traceback_of_the_workers(tmp_path: Path) -> None:
    script = "from tests.features.test_extraction import _extract_until_interrupted as run; print(1, flush=True); run()"
    command = [sys.executable, "-W", "ignore:This DataLoader", "-c", script, str(tmp_path)]  # where there is one core
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert errors.strip() == "interrupted"
