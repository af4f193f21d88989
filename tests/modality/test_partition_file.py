"""Scores and classes that come back from disk as they were."""

from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmmono.core.errors import StoreError
from mmmono.modality import (
    DominanceScores,
    load_partition,
    load_sharedness,
    partition_by_sigma,
    save_partition,
    save_sharedness,
    sharedness_scores,
)
from mmmono.modality.partition_file import NUMBERS, SHAREDNESS_NUMBERS
from mmmono.modality.report import FeatureSetDominance

R = st.one_of(st.floats(0, 1), st.just(float("nan")))


def scored(scores: np.ndarray) -> FeatureSetDominance:  # type: ignore[type-arg]
    values = torch.from_numpy(scores)
    counts = torch.arange(len(scores)) * 2**40
    return FeatureSetDominance(
        "sae",
        DominanceScores(
            *(values / divisor for divisor in range(1, 6)),
            *(counts + more for more in range(4)),
            num_pairs=2**41,
            num_groups=2**40,
        ),
        partition_by_sigma(values),
    )


@pytest.mark.fuzz
@given(hnp.arrays(np.float64, st.integers(1, 40), elements=R))
def test_what_was_saved_is_read(tmp_path_factory: pytest.TempPathFactory, scores: np.ndarray) -> None:  # type: ignore[type-arg]
    folder, wrote = tmp_path_factory.mktemp("partition"), scored(scores)
    file = save_partition(wrote, folder)
    read = load_partition(folder, "sae")
    for field in NUMBERS:
        torch.testing.assert_close(
            getattr(read.scores, field), getattr(wrote.scores, field), rtol=0, atol=0, equal_nan=True
        )
    assert (read.scores.num_pairs, read.scores.num_groups) == (2**41, 2**40)
    assert (read.partition.low, read.partition.high) == (wrote.partition.low, wrote.partition.high)
    assert read.partition.class_of() == wrote.partition.class_of()
    table = pd.read_parquet(file)  # as a user opens it
    assert table["class"].tolist() == wrote.partition.class_of()
    np.testing.assert_array_equal(table["scores"], scores)


def test_a_folder_without_a_partition_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"partition\.parquet is missing: it has to be made anew"):
        load_partition(tmp_path, "sae")
    pd.DataFrame({"feature": [0]}).to_parquet(tmp_path / "partition.parquet")
    with pytest.raises(StoreError, match=r"partition\.parquet is no whole partition"):
        load_partition(tmp_path, "sae")


def test_sharedness_is_read_as_it_was_saved(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    image, text = (torch.randn(300, 6, generator=random).relu() for _ in range(2))
    image[:, 4], text[:, 4], text[:, 5] = 0, 0, 0  # NaN, and constant on one side
    wrote = sharedness_scores([(image, text)], torch.arange(300).numpy() // 2)
    save_sharedness(wrote, tmp_path)
    read = load_sharedness(tmp_path)
    for field in SHAREDNESS_NUMBERS:
        torch.testing.assert_close(getattr(read, field), getattr(wrote, field), rtol=0, atol=0, equal_nan=True)
        assert getattr(read, field).dtype == getattr(wrote, field).dtype
    assert (read.num_pairs, read.num_groups) == (300, 150)


def test_a_folder_without_sharedness_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"sharedness\.parquet is missing"):
        load_sharedness(tmp_path)
