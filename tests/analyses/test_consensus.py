"""Other seeds: tables and figure from saved numbers, and pairs that are matched or scored, never both."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mmmono.analyses.consensus import CONSENSUS, Settings
from mmmono.core.errors import ConfigError
from mmmono.pipeline.analysis import shown_tables
from mmmono.pipeline.seed_comparison import SeedPairs
from mmmono.reporting.result import Result
from mmmono.reporting.style import CLASS_COLORS
from mmmono.reporting.tables import save_table

SUMMARY = {
    "feature_set": "sae", "seeds": 3, "pairs": 791, "groups": 393, "matched_groups": 1550, "live": 3, "rho": 0.119,
    "chance_rho": 0.007, "corrected_rho": 0.164, "corrected_rho_low": -0.1, "corrected_rho_high": 0.4, "ari": 0.017,
    "chance_ari": 0.001, "halves_ari": 0.063, "match": 0.37, "chance_match": 0.07, "consensus": 2, "consensus_share": 2 / 3,
    "consensus_rho": 0.37,
}  # fmt: skip


@pytest.fixture
def result(tmp_path: Path) -> Result:
    features = [
        {"feature_set": "sae", "feature": i, "class": of, "consensus": consensus, "mds": mds, "others_mds": 1 - mds}
        for i, (of, consensus, mds) in enumerate(
            [("ImgD", True, 0.9), ("TextD", True, 0.2), ("CrossD", False, 0.5), ("dead", False, 0.6)]
        )
    ]
    save_table(features, tmp_path / "features", list(CONSENSUS.columns["features"]))
    unknown = {"feature_set": "ncl", "corrected_rho": None, "corrected_rho_low": None, "corrected_rho_high": None}
    save_table([SUMMARY, {**SUMMARY, **unknown}], tmp_path / "summary", list(CONSENSUS.columns["summary"]))
    return Result(tmp_path, {"consensus": {"threshold": 0.8}, "sets": [{"name": "sae"}, {"name": "ncl"}]})


def test_agreement_is_shown_beside_chance_and_says_on_which_pairs(result: Result) -> None:
    (_, title, agreement), (_, other_title, consensus) = shown_tables(CONSENSUS, result)
    scored, matched = "scored on 791 pairs (393 groups)", "matched on one pair of each of 1550 other groups"
    assert title == f"Agreement between seeds, {scored}, {matched}"
    assert other_title == "Features whose match has r > 0.8 under every seed"
    assert (agreement[0]["ρ"], agreement[0]["chance ρ"]) == (0.119, 0.007)
    assert [row["corrected ρ [95 %]"] for row in agreement] == ["0.16 [-0.10, 0.40]", ""]
    assert (consensus[0]["consensus"], consensus[0]["live"], consensus[0]["their ρ"]) == (2, 3, 0.37)


def test_the_figure_pales_what_is_no_consensus(result: Result) -> None:
    ((name, figure),) = CONSENSUS.draw(result)
    assert name == "consensus"
    axis = figure.axes[0]
    assert axis.get_title(loc="left") == "sae: 2 of 3 consensus\nρ 0.12, chance 0.01"
    drawn = {(line.get_color(), line.get_alpha()): line.get_xydata() for line in axis.lines if line.get_marker() == "."}
    np.testing.assert_allclose(drawn[CLASS_COLORS["ImgD"], 1.0], [[0.9, 0.1]])
    np.testing.assert_allclose(drawn[CLASS_COLORS["CrossD"], 0.2], [[0.5, 0.5]])
    assert sum(map(len, drawn.values())) == 3  # the dead one is in no class


def workspace(groups: dict[str, list[int]], split: str, training: str = "train") -> Any:
    """As much of a workspace as pairs are chosen by."""

    class View(SimpleNamespace):
        def __len__(self) -> int:
            return len(self.numbers)

        def groups(self) -> np.ndarray:
            return np.unique(self.numbers, return_inverse=True)[1]

    return SimpleNamespace(
        seed=0, settings=SimpleNamespace(training=SimpleNamespace(split=training)), dataset=SimpleNamespace(split=split),
        features=lambda of: SimpleNamespace(view=View(numbers=np.array(groups[of]))),
    )  # fmt: skip


FIVE = {"train": [i // 5 for i in range(200)], "val": [i // 5 for i in range(100)], "all": [i // 5 for i in range(300)]}


def test_features_are_matched_on_one_training_pair_of_each_group() -> None:
    pairs = SeedPairs(workspace(FIVE, "val"), 1000)
    assert pairs.split == "train"
    assert sorted(pairs.matched // 5) == list(range(40))
    assert len(set(pairs.matched % 5)) > 1  # not always the first one
    assert pairs.scored.all()
    assert pairs.n_groups == 20
    assert pairs.scored_groups.tolist() == FIVE["val"]
    few = SeedPairs(workspace(FIVE, "val"), 11).matched
    assert len(few) == 11
    assert set(few) <= set(pairs.matched)


@pytest.mark.parametrize(("split", "training"), [("all", "train"), ("train", "train"), ("val", "all")])
def test_where_splits_share_pairs_groups_are_matched_or_scored(split: str, training: str) -> None:
    pairs = SeedPairs(workspace(FIVE, split, training), 1000)
    assert pairs.split == split
    groups = np.array(FIVE[split])
    matched, scored = set(groups[pairs.matched]), set(groups[pairs.scored])
    assert not matched & scored
    assert matched | scored == set(groups)
    assert len(matched) == len(scored) == len(set(groups)) // 2
    assert pairs.scored.sum() == 5 * len(scored)  # all captions of an image
    numbers = pairs.scored_groups
    assert set(numbers[~pairs.scored]) == {-1}
    assert sorted(set(numbers[pairs.scored])) == list(range(len(scored)))


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(ConfigError, match="only 3 groups of pairs of the split val are left to match or to score"):
        SeedPairs(workspace({**FIVE, "val": [0, 0, 1, 2]}, "val"), 1000)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"n_seeds": 0}, "n_seeds=0 must be at least 1"),
        ({"n_chance": 0}, "n_chance=0 must be at least 1"),
        ({"threshold": 1.0}, r"threshold=1.0 must be at least 0 and below 1"),
        ({"max_groups": 2}, "max_groups=2 must be at least"),
    ],
)
def test_settings_are_checked(setting: dict[str, Any], message: str) -> None:
    valid = {"n_seeds": 2, "threshold": 0.7, "n_chance": 1, "n_halves": 2, "n_bootstrap": 10, "max_groups": 100}
    Settings(**valid)
    with pytest.raises(ValueError, match=message):
        Settings(**{**valid, **setting})
