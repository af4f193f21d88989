import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from mmmono.core.errors import ConfigError, StoreError
from mmmono.dictionaries import ShuffledBatches
from mmmono.dictionaries.datamodule import SequentialBatches
from mmmono.dictionaries.pools import RowReader
from mmmono.features import FeatureStore, FeatureView


@pytest.fixture
def view(tmp_path: Path) -> FeatureView:
    """5,120 pairs whose image embedding is their number, and whose text embedding its negative."""
    numbers = np.arange(5120, dtype=np.float32)[:, None]
    for folder, values in (("img_emb", numbers), ("text_emb", -numbers)):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / f"{folder}_0.npy", values[:3000])
        np.save(tmp_path / folder / f"{folder}_1.npy", values[3000:])
    return FeatureView(FeatureStore(tmp_path), np.flatnonzero(np.arange(5120) % 5 != 2))


def numbers(batches: ShuffledBatches) -> list[list[int]]:
    out = []
    for batch in batches:
        torch.testing.assert_close(batch.text, -batch.image)
        out.append(batch.image.squeeze(1).long().tolist())
    return out


@pytest.mark.parametrize("pool_rows", [1 << 19, 1024])
def test_an_epoch_shows_every_pair_once_in_a_seeded_order(view: FeatureView, pool_rows: int) -> None:
    def make(seed: int) -> ShuffledBatches:
        return ShuffledBatches(reader(view), 128, seed=seed, pool_rows=pool_rows)

    loader = make(0)
    first, second = numbers(loader), numbers(loader)
    assert len(first) == len(loader) == 32
    assert view.rows is not None
    assert sorted(sum(first, [])) == sorted(sum(second, [])) == view.rows.tolist()
    assert first != second
    assert first == numbers(make(0))
    assert first != numbers(make(1))
    mixed = np.array(first[0])
    assert np.abs(np.diff(mixed)).mean() > 100  # neighbors on disk are not neighbors in a batch


@pytest.mark.parametrize("pool_rows", [1 << 19, 1024])
@pytest.mark.parametrize("stop_after", [1, 17, 32, 45])
def test_resumes_with_the_batches_that_were_left(view: FeatureView, pool_rows: int, stop_after: int) -> None:
    def make() -> ShuffledBatches:
        return ShuffledBatches(reader(view), 128, pool_rows=pool_rows)

    uninterrupted = make()
    whole = numbers(uninterrupted) + numbers(uninterrupted)
    interrupted, seen = make(), []
    while len(seen) < stop_after:
        for batch in interrupted:
            seen.append(batch.image.squeeze(1).long().tolist())
            if len(seen) == stop_after:
                break
    resumed = make()
    resumed.load_state_dict(interrupted.state_dict())
    rest = numbers(resumed)
    assert seen + rest == whole[: len(seen) + len(rest)]


def test_processes_share_an_epoch(view: FeatureView) -> None:
    shares = [numbers(ShuffledBatches(reader(view), 128, pool_rows=1024, rank=rank, world_size=3)) for rank in range(3)]
    assert [len(share) for share in shares] == [10, 10, 10]
    counts = Counter(number for share in shares for batch in share for number in batch)
    assert set(counts.values()) == {1}
    single = numbers(ShuffledBatches(reader(view), 128, pool_rows=1024))
    assert shares[1] == single[1:30:3]


def test_batches_larger_than_the_split_are_refused(view: FeatureView) -> None:
    with pytest.raises(ConfigError, match="batch_size=8192 .* set training.batch_size=4096 or less"):
        ShuffledBatches(reader(view), 8192)


def expected_order(view: FeatureView, batch: int, pool_rows: int, epoch: int) -> list[list[int]]:
    """The order as the class describes it, with all rows at hand: what neither threads nor reused memory may change."""
    chunks_in_all = -(-len(view) // 1024)
    generator = np.random.default_rng([0, epoch])
    chunks = generator.permutation(chunks_in_all)
    seeds = generator.integers(1 << 62, size=-(-len(view) // pool_rows))
    rows = view.rows if view.rows is not None else np.arange(len(view))
    ordered = [*chunks[chunks != chunks_in_all - 1], chunks_in_all - 1]
    out: list[int] = []
    for number, seed in enumerate(seeds):
        a_pool = pool_rows // 1024
        pool = np.concatenate(
            [rows[c * 1024 : (c + 1) * 1024] for c in ordered[number * a_pool : (number + 1) * a_pool]]
        )
        out += pool[torch.randperm(len(pool), generator=torch.Generator().manual_seed(int(seed))).numpy()].tolist()
    return [out[start : start + batch] for start in range(0, len(out) // batch * batch, batch)]


@pytest.mark.parametrize("pool_rows", [1024, 2048])
def test_pools_that_are_read_ahead_hold_what_the_order_says(view: FeatureView, pool_rows: int) -> None:
    loader = ShuffledBatches(reader(view), 256, pool_rows=pool_rows)
    for epoch in range(4):
        assert numbers(loader) == expected_order(view, 256, pool_rows, epoch)
    loader.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "read ahead"]


def test_a_pool_that_cannot_be_read_ahead_is_an_error(view: FeatureView, monkeypatch: pytest.MonkeyPatch) -> None:
    read = view.store.read

    def broken(*arguments: object) -> torch.Tensor:
        if threading.current_thread() is threading.main_thread():
            return read(*arguments)  # type: ignore[arg-type]
        raise StoreError("the disk is gone")

    monkeypatch.setattr(view.store, "read", broken)
    with pytest.raises(StoreError, match="the disk is gone"):
        list(ShuffledBatches(reader(view), 256, pool_rows=1024))


@pytest.mark.slow
def test_two_pools_are_all_the_memory_it_takes(tmp_path: Path) -> None:
    """Peak of a process that walks three pools of 128 MB twice, less what it had before."""
    rows, dim = 192 * 1024, 256
    for folder in ("img_emb", "text_emb"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / f"{folder}_0.npy", np.ones((rows, dim), np.float16))
    script = f"""
from pathlib import Path
from mmmono.dictionaries import RowReader, ShuffledBatches
from mmmono.features import FeatureStore, FeatureView
def held():
    return 1024 * int(next(l for l in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in l).split()[1])
loader = ShuffledBatches(RowReader(FeatureView(FeatureStore({str(tmp_path)!r}))), 256, pool_rows=1 << 16)
small = ShuffledBatches(RowReader(FeatureView(FeatureStore({str(tmp_path)!r}))), 256, pool_rows=1024)
next(iter(small)); small.close()  # what the first use of anything takes
before, peak = held(), 0
for epoch in range(2):
    for batch in loader:
        peak = max(peak, held() - before)
print(peak / (2 * (1 << 16) * {dim} * 4))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert 1.9 < float(run.stdout) < 2.2


def test_validation_is_shared_out(view: FeatureView) -> None:
    """Every pair once, in steps of equally many for all, though the last ones may be short or empty."""
    for world in (1, 2, 3):
        shares = [
            [batch.image.squeeze(1).long().tolist() for batch in SequentialBatches(reader(view), 500, rank, world)]
            for rank in range(world)
        ]
        assert {len(share) for share in shares} == {-(-4096 // (500 * world))}
        in_order = [row for step in zip(*shares, strict=True) for batch in step for row in batch]
        assert view.rows is not None
        assert in_order == view.rows.tolist()


def reader(view: FeatureView) -> RowReader:
    return RowReader(view, normalize=False, device="cpu")


def test_double_precision_from_the_stored_numbers_on(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float16)
    for folder in ("img_emb", "text_emb"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / f"{folder}_0.npy", values)
    rows = RowReader(FeatureView(FeatureStore(tmp_path)), True, "cpu", torch.float64).read("image", 0, 300)
    exact = values.astype(np.float64)
    np.testing.assert_allclose(rows.numpy(), exact / np.linalg.norm(exact, axis=1, keepdims=True), rtol=1e-14)
