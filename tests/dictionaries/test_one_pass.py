"""Several trainings in one pass over the pairs: each as if it were alone, and the pairs are read once."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from mmmono.core.turns import Turns
from mmmono.dictionaries import DictionaryModule, MetricHistory, PairedFeatures, RowReader
from mmmono.dictionaries.one_pass import OnePass, SharedPairs
from mmmono.dictionaries.resume_checkpoint import ResumeCheckpoint
from mmmono.features import FeatureStore, FeatureView
from tests.dictionaries.test_resuming import Dies
from tests.dictionaries.test_training import FAMILY, ncl_module, sae_module, trainer

Pairs = tuple[FeatureView, FeatureView, int, bool, int, int]
Trained = tuple[pd.DataFrame, dict[str, torch.Tensor]]
MODULES: list[Callable[[], DictionaryModule]] = [sae_module, ncl_module, *FAMILY]


@pytest.fixture(scope="module", params=[1 << 19, 1024], ids=["resident", "streamed"])
def pairs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """3,000 pairs to train on, which do or do not fit into a pool, and 300 to validate on, in batches of 128."""
    root = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    atoms = rng.standard_normal((24, 12))
    codes = rng.random((3300, 24)) * (rng.random((3300, 24)) < 0.15)
    for folder, gap in (("img_emb", 1.0), ("text_emb", -1.0)):
        (root / folder).mkdir()
        values = codes @ atoms + 0.05 * rng.standard_normal((3300, 12)) + gap * np.eye(12)[0]
        np.save(root / folder / f"{folder}_0.npy", values.astype(np.float32))
    store = FeatureStore(root)
    return FeatureView(store, np.arange(3000)), FeatureView(store, np.arange(3000, 3300)), 128, True, 0, request.param


def fit(
    make: Callable[[], DictionaryModule],
    data: PairedFeatures,
    folder: Path,
    *more: Callback,
    steps: int = 50,
    resume: bool = False,
) -> Trained:
    module, history = make(), MetricHistory()
    run = trainer(folder, history, ResumeCheckpoint(str(folder), 10), *more, steps=steps)
    run.fit(module, data, ckpt_path=folder / "last.ckpt" if resume else None, weights_only=True)
    return history.frame(), {name: value.clone() for name, value in module.state_dict().items()}


def together(
    pairs: Pairs, folder: Path, modules: Sequence[Callable[[], DictionaryModule]] = MODULES, **settings: Any
) -> list[Trained]:
    turns: Turns[Trained] = Turns()
    with closing(OnePass(turns)) as one_pass, turns:
        for number, make in enumerate(modules):
            turns.add(partial(fit, make, SharedPairs(one_pass, *pairs), folder / str(number), **settings))
        return turns.results()


def assert_equal(found: Sequence[Trained], expected: Sequence[Trained]) -> None:
    assert len(found) == len(expected)
    for (history, state), (others_history, others_state) in zip(found, expected, strict=True):
        pd.testing.assert_frame_equal(history, others_history, check_exact=True)
        assert list(state) == list(others_state)
        assert all(torch.equal(value, others_state[name]) for name, value in state.items())


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> "Counter[tuple[int, int]]":
    """How often each range of rows was read."""
    seen: Counter[tuple[int, int]] = Counter()
    read = RowReader.read

    def counted(self: RowReader, modality: Any, start: int, stop: int) -> torch.Tensor:
        seen[start, stop] += 1
        return read(self, modality, start, stop)

    monkeypatch.setattr(RowReader, "read", counted)
    return seen


def test_each_becomes_what_it_becomes_alone_and_pairs_are_read_once(
    pairs: Pairs, tmp_path: Path, reads: "Counter[tuple[int, int]]"
) -> None:
    found = together(pairs, tmp_path / "together")
    once = reads.copy()
    reads.clear()
    alone = []
    for number, make in enumerate(MODULES):
        alone.append(fit(make, PairedFeatures(*pairs), tmp_path / "alone" / str(number)))
        if number == 0:
            assert once == reads
    assert_equal(found, alone)


def test_one_that_was_interrupted_earlier_catches_up(pairs: Pairs, tmp_path: Path) -> None:
    modules = MODULES[:3]
    expected = together(pairs, tmp_path / "undisturbed", modules)
    for number, (make, died) in enumerate(zip(modules, (12, 37, 31), strict=True)):
        with pytest.raises(RuntimeError, match="killed"):
            fit(make, PairedFeatures(*pairs), tmp_path / "killed" / str(number), Dies(died))
    assert_equal(together(pairs, tmp_path / "killed", modules, resume=True), expected)


def test_one_that_ends_earlier_is_not_waited_for(pairs: Pairs, tmp_path: Path) -> None:
    turns: Turns[Trained] = Turns()
    with closing(OnePass(turns)) as one_pass, turns:
        for number, steps in enumerate((50, 20)):
            data = SharedPairs(one_pass, *pairs)
            turns.add(partial(fit, sae_module, data, tmp_path / str(number), steps=steps))
        found = turns.results()
    assert_equal(found, [fit(sae_module, PairedFeatures(*pairs), tmp_path / f"{n}", steps=n) for n in (50, 20)])
