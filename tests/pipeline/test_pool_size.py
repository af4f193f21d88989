"""How many pairs a training holds in memory, whatever its batches are."""

from types import SimpleNamespace
from typing import Any

import pytest

from mmmono.core.errors import ConfigError
from mmmono.dictionaries.pools import check_pool, whole_pool
from mmmono.features import FeatureView
from mmmono.pipeline.feature_sets import make_spec
from mmmono.pipeline.specs import Trained
from mmmono.pipeline.training import _batch_size, plan_training
from tests.pipeline.test_feature_sets import configured

LARGE = 10_000_000  # pairs


class View(FeatureView):
    """So many pairs, none of which anybody reads."""

    dim = 8

    def __init__(self, pairs: int) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return self.pairs


@pytest.mark.parametrize("processes", range(1, 9))
def test_any_number_of_processes_keeps_two_pools_as_large_as_asked_for(processes: int) -> None:
    size = _batch_size(None, LARGE, processes)
    assert 4096 / (2 * processes) < size <= 4096 / processes
    assert 2 * whole_pool(1 << 19, size) <= 2 * (1 << 19)
    check_pool(LARGE, size, 1 << 19)


@pytest.mark.parametrize(
    ("pairs", "size", "pool", "held"),
    [(LARGE, 4095, 1 << 19, 2 * 1024 * 4095), (LARGE, 3000, 1 << 16, 2 * 384_000), (300_000, 3000, 1 << 16, 300_000)],
)
def test_batches_that_make_larger_pools_are_refused_with_what_to_give(
    pairs: int, size: int, pool: int, held: int
) -> None:
    with pytest.raises(ConfigError, match=rf"batch_size={size} would keep {held:,} pairs .*pool_rows={pool}: ") as told:
        check_pool(pairs, size, pool)
    assert str(told.value).endswith("give training.batch_size=2048, or another power of two")
    check_pool(pairs, 2048, pool)


@pytest.mark.parametrize(("pairs", "size", "pool"), [(400, 50, 64), (100_000, 3000, 1 << 16), (LARGE, 1000, 1 << 19)])
def test_small_sets_and_pools_that_hardly_grow_are_taken(pairs: int, size: int, pool: int) -> None:
    check_pool(pairs, size, pool)


def test_it_is_said_before_training() -> None:
    features: Any = SimpleNamespace(view=View(LARGE))
    cfg = configured("sae", "trainer=cpu", "training.batch_size=4095")
    kind = make_spec("sae", cfg.features.sets.sae)
    assert isinstance(kind, Trained)
    with pytest.raises(ConfigError, match="training.batch_size=4095 would keep 8,386,560 pairs"):
        plan_training("sae", kind, features, features, cfg)
