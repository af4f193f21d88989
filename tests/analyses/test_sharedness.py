"""The analysis `sharedness`: what it saves on synthetic pairs, what is shown, and the benchmark that it has to pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import hypergeom

from mmmono.analyses.sharedness import SHAREDNESS, Settings
from mmmono.features.synthetic import SyntheticParameters, synthesize
from mmmono.modality import modality_dominance_score, sharedness_scores
from mmmono.modality.validation import ConceptMatch, shared_auroc
from mmmono.reporting.result import Result
from mmmono.reporting.style import CLASS_COLORS
from mmmono.reporting.tables import save_table
from tests.pipeline.conftest import newest, run_entrypoint, saved_rows

ROWS = [("ImgD", 0.9, 0.1, 0.2), ("ImgD", 0.7, 0.5, 0.01), ("TextD", 0.2, 0.0, 0.9), ("CrossD", 0.5, 0.8, 0.01)]


@pytest.fixture
def result(tmp_path: Path) -> Result:
    scores = [
        {"feature_set": "sae", "feature": i, "class": of, "mds": mds, "sharedness": score, "q_value": q}
        for i, (of, mds, score, q) in enumerate([*ROWS, ("dead", None, None, None)])
    ]
    save_table(scores, tmp_path / "scores", list(SHAREDNESS.columns["scores"]))
    summary = [
        {
            "feature_set": "sae",
            "class": of,
            "features": n,
            "shared": k,
            "median_sharedness": 0.3,
            "co_firing_ratio": None,
        }
        for of, n, k in (("ImgD", 2, 1), ("TextD", 1, 0), ("CrossD", 1, 1), ("live", 4, 2))
    ]
    save_table(summary, tmp_path / "summary", list(SHAREDNESS.columns["summary"]))
    return Result(tmp_path, {"sharedness": {"fdr": 0.05}, "sets": [{"name": "sae"}]})


def test_the_table_says_how_many_of_each_class_are_shared(result: Result) -> None:
    rows = SHAREDNESS.tables[0].rows(result)
    assert [(row["class"], row["shared"]) for row in rows] == [
        ("ImgD", "1 of 2"), ("TextD", "0 of 1"), ("CrossD", "1 of 1"), ("live", "2 of 4"),
    ]  # fmt: skip


def test_the_figure_has_both_axes_and_pales_what_is_not_shared(result: Result) -> None:
    ((name, figure),) = SHAREDNESS.draw(result)
    assert name == "sharedness"
    (axis,) = figure.axes
    assert axis.get_title(loc="left") == "sae\n50% shared"
    drawn = {
        (line.get_color(), line.get_alpha()): np.array(line.get_xydata())
        for line in axis.lines
        if line.get_marker() == "."
    }
    np.testing.assert_allclose(drawn[CLASS_COLORS["ImgD"], 0.9], [[0.7, 0.5]])
    np.testing.assert_allclose(drawn[CLASS_COLORS["ImgD"], 0.25], [[0.9, 0.1]])
    np.testing.assert_allclose(drawn[CLASS_COLORS["TextD"], 0.25], [[0.2, 0.0]])
    assert sum(len(points) for points in drawn.values()) == 4
    legend = axis.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "ImgD: 1 of 2 shared", "TextD: 0 of 1 shared", "CrossD: 1 of 1 shared",
    ]  # fmt: skip


def test_a_false_discovery_rate_is_between_0_and_1() -> None:
    with pytest.raises(ValueError, match="fdr=1 is no false discovery rate"):
        Settings(fdr=1)


def test_the_command_counts_groups_and_matches_scipy(tmp_path: Path) -> None:
    """On a store in which the pairs of one image are one group."""
    rng = np.random.default_rng(0)
    pairs, dim = 400, 6
    groups = np.arange(pairs) // 2
    fires = [rng.random((pairs // 2, dim))[groups] < 0.1 for _ in range(2)]
    fires[1][:, :2] = fires[0][:, :2]  # two features that are shared
    for prefix, side in zip(("img_emb", "text_emb"), fires, strict=True):
        (tmp_path / prefix).mkdir()
        np.save(tmp_path / prefix / f"{prefix}_0.npy", (side * rng.uniform(1, 2, side.shape)).astype(np.float32))
    (tmp_path / "metadata").mkdir()
    metadata = pd.DataFrame({"key": [str(i) for i in range(pairs)], "group": [str(group) for group in groups]})
    metadata.to_parquet(tmp_path / "metadata" / "metadata_0.parquet")
    settings = [
        "dataset=store",
        f"dataset.path={tmp_path}",
        "dataset.split=all",
        "features=raw",
        "features.normalize=false",
    ]
    root = tmp_path / "artifacts"
    assert run_entrypoint("sharedness", f"artifacts={root}", "model.name=mine", *settings) == 0
    found = newest(root, "sharedness")
    scores = pd.DataFrame(saved_rows(found, "scores"))
    for feature in range(dim):
        image, text = (side[::2, feature] for side in fires)
        row, both = scores.iloc[feature], int((image & text).sum())
        null = hypergeom(pairs // 2, image.sum(), text.sum())
        assert row.co_firing == both
        assert row.p_value == pytest.approx(null.sf(both) + null.pmf(both) / 2, rel=1e-6)
        assert row.sharedness == pytest.approx(np.corrcoef(image, text)[0, 1], abs=1e-9)
    live = {row["class"]: row for row in saved_rows(found, "summary")}["live"]
    assert (live["pairs"], live["groups"], live["features"], live["sparse"]) == (pairs, pairs // 2, dim, dim)
    assert live["shared"] == int((scores.q_value <= 0.05).sum()) >= 2
    assert (found / "sharedness.png").exists()


# The benchmark: shared concepts with gains of up to 10 : 1 against single-modality ones that leak into the other modality.
LOPSIDED = SyntheticParameters(
    pairs=6000, dim=32, image_atoms=16, text_atoms=16, shared_atoms=16, active=3, gain_ratio=10, leak=0.5
)


def test_true_codes_sharedness_separates_where_dominance_does_not() -> None:
    pairs = synthesize(LOPSIDED)
    codes = pairs.image_codes, pairs.text_codes
    one_to_one = ConceptMatch(torch.arange(48), torch.ones(48), torch.arange(48))
    lean = (modality_dominance_score(*codes) - 0.5).abs()
    assert shared_auroc(sharedness_scores([codes]).score, one_to_one, pairs.kind) >= 0.95
    assert shared_auroc(-lean, one_to_one, pairs.kind) < 0.8


@pytest.mark.slow
def test_latents_of_a_trained_sae_sharedness_separates_where_dominance_does_not(tmp_path: Path) -> None:
    data = [
        f"dataset.{name}={getattr(LOPSIDED, name)}"
        for name in ("pairs", "dim", "image_atoms", "text_atoms", "shared_atoms", "active", "gain_ratio", "leak")
    ]
    quick = [
        "validate.quick=true",
        "validate.seeds=1",
        "validate.n_permutations=100",
        "validate.jobs=1",
        "features=sae",
    ]
    assert run_entrypoint("validate", f"artifacts={tmp_path}", *data, *quick) == 0
    (row,) = saved_rows(newest(tmp_path, "validate"), "validation")
    assert row["auroc_sharedness"] >= 0.95
    assert row["auroc_lean"] < 0.8
