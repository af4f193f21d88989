import json
import multiprocessing as mp
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mmmono.core.errors import DataError, ModelError
from mmmono.features import FeatureStore, extract_features
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


@pytest.mark.parametrize("limit", [1, 7, 9, 15, 40])
def test_limit_takes_the_first_pairs(tmp_path: Path, limit: int) -> None:
    source = ColorPairs(limit=limit)
    manifest = extract_features(source, ColorEncoder(), tmp_path, batch_size=4, workers=2)
    all_keys = [f"{part}/{i}" for part, size in enumerate(source.sizes) for i in range(size)]
    assert FeatureStore(tmp_path).metadata()["key"].tolist() == all_keys[:limit]
    assert manifest.count == min(limit, 15)


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


class SlowPairs(ColorPairs):
    def read(self, part: int):  # type: ignore[no-untyped-def]
        for item in super().read(part):
            time.sleep(0.05)
            yield item


def _extract_slowly(directory: str) -> None:
    extract_features(SlowPairs(), ColorEncoder(), Path(directory), batch_size=2)


def test_killed_at_any_moment_it_goes_on_with_whole_shards(tmp_path: Path) -> None:
    process = mp.get_context("spawn").Process(target=_extract_slowly, args=(str(tmp_path),))
    process.start()
    deadline = time.monotonic() + 60
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
