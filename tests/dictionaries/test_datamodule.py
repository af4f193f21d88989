from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from mmmono.core.errors import ConfigError
from mmmono.dictionaries import ShuffledBatches
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
        return ShuffledBatches(view, 128, seed=seed, normalize=False, pool_rows=pool_rows)

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
        return ShuffledBatches(view, 128, normalize=False, pool_rows=pool_rows)

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
    shares = [
        numbers(ShuffledBatches(view, 128, normalize=False, pool_rows=1024, rank=rank, world_size=3))
        for rank in range(3)
    ]
    assert [len(share) for share in shares] == [10, 10, 10]
    counts = Counter(number for share in shares for batch in share for number in batch)
    assert set(counts.values()) == {1}
    single = numbers(ShuffledBatches(view, 128, normalize=False, pool_rows=1024))
    assert shares[1] == single[1:30:3]


def test_batches_larger_than_the_split_are_refused(view: FeatureView) -> None:
    with pytest.raises(ConfigError, match="batch_size=8192 .* set training.batch_size=4096 or less"):
        ShuffledBatches(view, 8192)
