"""Certainty of the scores: the table as it is shown, and the figure from the saved scores."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mmmono.analyses.certainty import CERTAINTY, Settings, analysis
from mmmono.analyses.certainty.analysis import OfFeatures, check_memory
from mmmono.core.errors import ConfigError
from mmmono.features import ActivationBlock
from mmmono.modality import dominance_scores
from mmmono.modality.resampling import ResamplingStream
from mmmono.pipeline.engines import Local, Ray
from mmmono.reporting.result import Result
from mmmono.reporting.style import CLASS_COLORS
from mmmono.reporting.tables import save_table


@pytest.fixture
def result(tmp_path: Path) -> Result:
    classes = ["ImgD", "ImgD", "TextD", "CrossD", "dead"]
    scores = [
        {
            "feature_set": "sae",
            "feature": i,
            "class": of,
            "mds": mds,
            "low": mds - 0.1,
            "high": mds + 0.1,
            "q_value": 0.01,
            "border_q_value": q,
        }
        for i, (of, mds, q) in enumerate(
            zip(classes, (0.9, 0.7, 0.2, 0.5, None), (0.01, 0.2, 0.04, 0.9, None), strict=True)
        )
        if mds is not None
    ]
    scores.append({"feature_set": "sae", "feature": 4, "class": "dead"})
    save_table(scores, tmp_path / "scores", list(CERTAINTY.columns["scores"]))
    summary = {"feature_set": "sae", "pairs": 90, "groups": 30, "live": 4, "significant": 3, "ImgD": 2,
               "ImgD_significant": 2, "ImgD_confirmed": 1, "TextD": 1, "TextD_significant": 1, "TextD_confirmed": 1,
               "std": 0.1, "null_std": 0.05, "reliability": 0.7, "corrected_std": 0.084,
               "halves_rho": 0.5, "halves_ari": 0.4, "energy_rho": 0.9, "auroc_rho": 0.8}  # fmt: skip
    save_table([summary], tmp_path / "summary", list(CERTAINTY.columns["summary"]))
    return Result(tmp_path, {"certainty": {"fdr": 0.05}, "sets": [{"name": "sae"}]})


def test_what_was_not_computed_is_an_empty_cell(result: Result) -> None:
    shown = {view.name: view.rows(result) for view in CERTAINTY.tables}
    (row,) = shown["certainty"]
    assert (row["ImgD confirmed"], row["TextD confirmed"], row["significant"]) == ("1 of 2", "1 of 1", 3)
    assert (row["pairs"], row["groups"], row["σ"], row["null σ"]) == (90, 30, 0.1, 0.05)
    assert shown["certainty_plan"] == []  # certainty.plan=false
    (row,) = shown["certainty_agreement"]
    assert row["halves ρ"] == 0.5


def test_the_plan_says_what_each_number_of_groups_is_for(result: Result) -> None:
    aims = (("half_width", 0.01), ("difference", 0.05), ("border", None))
    plan = [
        {"feature_set": "sae", "aim": aim, "target": target, "asked": 4, "groups": 30, "groups_median": 900.0,
         "groups_90": 1200.0, "informative_median": 90.0}
        for aim, target in aims
    ]  # fmt: skip
    save_table(plan, result.folder / "plan", list(CERTAINTY.columns["plan"]))
    (view,) = (view for view in CERTAINTY.tables if view.name == "certainty_plan")
    rows = view.rows(result)
    assert [row["to know"] for row in rows] == ["R(d) ± 0.01", "|R(d) − ½| = 0.05", "beyond its border"]
    assert {(row["groups here"], row["needed, median"], row["needed, 90 %"]) for row in rows} == {(30, 900, 1200)}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("fdr", 1.0, "fdr=1.0 must lie between 0 and 1"),
        ("plan_half_width", 0.0, "plan_half_width=0.0 must lie between 0"),
    ],
)
def test_settings_are_checked(name: str, value: float, message: str) -> None:
    good = {"n_permutations": 1, "n_bootstrap": 1, "n_halves": 1, "fdr": 0.05, "auroc_pairs": 9,
            "plan": True, "plan_half_width": 0.01, "plan_difference": 0.05, "plan_power": 0.8}  # fmt: skip
    with pytest.raises(ValueError, match=message):
        Settings(**{**good, name: value})  # type: ignore[arg-type]


def test_the_figure_shows_live_features_and_pales_those_that_are_not_confirmed(result: Result) -> None:
    ((name, figure),) = CERTAINTY.draw(result)
    assert name == "certainty"
    (axis,) = figure.axes
    assert axis.get_title(loc="left") == "sae\n50% confirmed"
    drawn = {(line.get_color(), line.get_alpha()): line.get_ydata() for line in axis.lines if line.get_marker() == "."}
    np.testing.assert_allclose(drawn[CLASS_COLORS["ImgD"], 1.0], [0.9])
    np.testing.assert_allclose(drawn[CLASS_COLORS["ImgD"], 0.25], [0.7])
    np.testing.assert_allclose(drawn[CLASS_COLORS["TextD"], 1.0], [0.2])
    assert sum(len(values) for values in drawn.values()) == 4


def test_dead_features_take_no_memory_and_change_nothing_for_live_ones() -> None:
    """Each took as much as a live one, 97 KB: 1.6 GB for 16,384 latents, in each range that is folded at a time."""
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.rand(600, 50, generator=generator) for _ in range(2))
    chosen = torch.arange(0, 50, 7)
    everything, fewer = (ResamplingStream(500, 40, 5, seed=1) for _ in range(2))
    everything.add(image, text)
    fewer.add(*OfFeatures(chosen, 50)(ActivationBlock(0, image, text)))
    whole, found = everything.result(), fewer.result()
    assert found.permuted.shape == (500, len(chosen))
    assert torch.equal(found.p_value, whole.p_value[chosen])
    for name in ("bootstrap", "halves", "permuted"):
        torch.testing.assert_close(getattr(found, name), getattr(whole, name)[..., chosen], rtol=0, atol=1e-14)
    scores = dominance_scores([(image, text)])
    alone = dominance_scores([(image[:, chosen], text[:, chosen])])
    for name in ("scores", "standard_error", "effective_groups", "informative_pairs"):
        torch.testing.assert_close(getattr(scores.of(chosen), name), getattr(alone, name))
    assert scores.of(chosen).num_pairs == 600


def test_resamples_beyond_the_memory_are_refused_before_any_work() -> None:
    check_memory((10_000, 1000, 20), 16_384)
    with pytest.raises(
        ConfigError, match=r"of 1,000,000,000 live features take .* lower certainty.n_permutations=10000"
    ):
        check_memory((10_000, 1000, 20), 1_000_000_000)


def test_memory_is_that_of_all_ranges_in_the_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "usable_memory", lambda: 64 * 10**9)
    check_memory((10_000, 1000, 20), 65_536)  # 6.3 GB
    check_memory((10_000, 1000, 20), 65_536, Local(workers=4).streams("cpu"))
    with pytest.raises(ConfigError, match="take 108 GB, but .* 64 GB of memory: lower engine.workers, of which each"):
        check_memory((10_000, 1000, 20), 65_536, Local(workers=8).streams("cpu"))
    assert (Local(workers=8).streams("cpu"), Ray(workers=3).streams("cpu"), Ray().streams("cpu")) == (17, 7, 3)
    assert Local().streams("cuda") == 3
