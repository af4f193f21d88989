"""Two models on one explorer page, in a browser: which class a feature has in one, and its counterpart in the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmmono.commands.explorer.page import ExploredFeatures
from mmmono.core.modality_names import ModalityNames
from tests.reporting.browser import opened
from tests.reporting.made_up import FEATURES, compared, explored, write
from tests.reporting.test_explorer import read
from tests.reporting.test_explorer_access import CONTRAST

OTHER = "sae of clip_rn50"
CHANCE = 0.15
SHOWN = "(what) => document.querySelector(what)?.checkVisibility()"


@pytest.fixture(scope="module")
def models() -> list[ExploredFeatures]:
    """A feature set of either model; unrelated ones, so chance is set low for most features to have a counterpart."""
    both = compared(explored("sae", FEATURES), replace(explored(OTHER, 60, seed=1, mono=False), run=1), (0, 1))
    likeness = [one.likeness for one in both]
    low = [{name: replace(found, chance=CHANCE) for name, found in of.counterparts.items()} for of in likeness]
    return [
        replace(one, likeness=replace(of, counterparts=found))
        for one, of, found in zip(both, likeness, low, strict=True)
    ]


@pytest.fixture(scope="module")
def two(models: list[ExploredFeatures], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("two models"), models)


def matched(page: Path) -> pd.DataFrame:
    """Features of the first model with a counterpart beyond chance, and what both are."""
    found = read(page, "sae/counterparts")[OTHER]
    mine, theirs = (read(page, f"{name}/table") for name in ("sae", OTHER))
    rows = [
        {"feature": feature, "other": other, "r": r, "mine": kind(mine, feature), "theirs": kind(theirs, other)}
        for feature, (other, r) in enumerate(zip(found["feature"], found["r"], strict=True))
        if other >= 0 and r >= found["chance"]
    ]
    return pd.DataFrame(rows)


def kind(table: dict[str, Any], feature: int) -> str:
    of: str = table["class"][feature]
    return "rare" if of == "dead" else of


def test_classes_of_one_model_against_those_of_the_other(browser: Any, two: Path) -> None:
    pairs = matched(two)
    counts = pd.crosstab(pairs.mine, pairs.theirs)
    expected = pd.DataFrame(
        np.outer(counts.sum(axis=1), counts.sum(axis=0)) / len(pairs), counts.index, counts.columns
    )  # fmt: skip
    assert counts.to_numpy().sum() > 30
    assert counts.to_numpy().max() > 3
    with opened(browser, two, "#compare", width=1440) as tab:
        table = tab.locator("#counterparts .classes")
        table.wait_for()
        assert [tab.evaluate(f"matching.{end}") for end in ("from", "to")] == ["sae", OTHER]
        assert table.locator("thead th").all_inner_texts() == [
            n for n in ("ImgD", "TextD", "CrossD", "rare") if n in counts
        ]
        for mine in counts.index:
            for theirs in counts.columns:
                cell = table.locator(f"[data-cell='{mine}-{theirs}']")
                count, chance = cell.inner_text().split()
                assert int(count) == counts.loc[mine, theirs]
                assert float(chance) == pytest.approx(expected.loc[mine, theirs], abs=0.051)
                assert cell.get_attribute("aria-label") == (
                    f"{count} of {mine} in sae and {theirs} in {OTHER}; {chance} if unrelated"
                )
                assert cell.is_disabled() == (count == "0")
        assert "chance 0.150" in tab.locator("#counterparts label", has_text="r ≥").inner_text()


def test_a_cell_filters_the_list_and_the_plot_by_mouse_and_keyboard(browser: Any, two: Path) -> None:
    pairs = matched(two)
    mine, theirs = pairs[["mine", "theirs"]].value_counts().index[0]
    inside = pairs[(pairs.mine == mine) & (pairs.theirs == theirs)].sort_values(
        ["r", "feature"], ascending=[False, True]
    )
    with opened(browser, two, "#compare", width=1440) as tab:
        cell = tab.locator(f"[data-cell='{mine}-{theirs}']")
        cell.click()
        assert cell.get_attribute("aria-pressed") == "true"
        listed = tab.locator("#counterparts .matches tbody tr")
        shown = listed.locator("td:first-child a").all_inner_texts()
        assert [int(text) for text in shown] == inside.feature.tolist()[:50]
        assert tab.locator("#said").inner_text() == f"{len(inside)} counterparts listed"
        mask = np.array(tab.evaluate("[...matchPlot.mask]"), dtype=bool)
        assert pairs.feature[mask].tolist() == inside.feature.sort_values().tolist()
        assert tab.evaluate("document.activeElement.dataset.cell") == f"{mine}-{theirs}"  # the focus stays
        tab.keyboard.press("Enter")  # and takes the choice away
        assert cell.get_attribute("aria-pressed") == "false"
        assert listed.count() == min(50, len(pairs))
        cell.click()
        tab.locator("#counterparts label", has_text="mutual").click()  # other pairs, all of them
        tab.wait_for_function("matching.mutual && matching.classes === null")


def test_scores_of_one_model_against_those_of_the_other(browser: Any, two: Path) -> None:
    pairs = matched(two)
    scores = [np.array(read(two, f"{name}/table")["mds"], dtype=float) for name in ("sae", OTHER)]
    with opened(browser, two, "#compare", width=1440) as tab:
        tab.locator("#counterparts canvas").first.wait_for()
        places = [np.array(tab.evaluate(f"[...matchPlot.{axis}]")) for axis in ("px", "py")]
        for place, values, sign in zip(
            places, (scores[0][pairs.feature], scores[1][pairs.other]), (1, -1), strict=True
        ):
            assert np.corrcoef(place, values)[0, 1] == pytest.approx(sign, abs=1e-4)
        titles = tab.evaluate("matchPoints.titles")
        assert titles == ["MDS in sae", f"MDS in {OTHER}, of the counterpart"]


def test_a_feature_links_to_its_counterpart_in_the_other_model(browser: Any, two: Path) -> None:
    first = matched(two).sort_values("r").iloc[-1]
    with opened(browser, two, f"#sae/{first.feature}") as tab:
        link = tab.locator(".neighbors.others li", has_text=OTHER).locator("a")
        assert f"r {first.r:.2f}, chance 0.15" in link.inner_text()
        link.click()
        card = tab.locator(f".card[data-set='{OTHER}'][data-feature='{first.other}']")
        card.wait_for()
        assert tab.locator("#sets a[aria-current]").inner_text() == OTHER
        assert tab.locator("#said").inner_text().startswith(f"{OTHER} feature {first.other}, ")
        tab.reload()
        card.wait_for()
        tab.keyboard.press("p")
        tab.locator("#sets a", has_text="compare (1)").click()
        tab.locator("#compare .card").wait_for()
        tab.reload()  # the address holds it
        tab.locator(f"#compare .card[data-set='{OTHER}']").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_two_models_can_be_read_on_a_phone_and_in_the_dark(browser: Any, two: Path, width: int, scheme: str) -> None:
    with opened(browser, two, "#compare/sae:9", width=width, color_scheme=scheme) as tab:
        cell = tab.locator("#counterparts .classes button:not([disabled])").first
        cell.wait_for()
        for _ in range(2):
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.evaluate(CONTRAST) == []
            cell.click()


@pytest.mark.parametrize(
    "modalities", [ModalityNames("audio", "lyrics"), ModalityNames("point cloud 3D", "radio transcript")]
)
def test_long_names_of_modalities_fit_their_columns(browser: Any, tmp_path: Path, modalities: ModalityNames) -> None:
    page = write(
        tmp_path, compared(explored("sae", FEATURES), explored("raw", 40, seed=1), (0, 1)), modalities=modalities
    )
    with opened(browser, page, "#sae") as tab:
        for width in (390, 760, 1000, 1440, 2200):
            tab.set_viewport_size({"width": width, "height": 800})
            for where in ("#sae", "#sae/3", "#compare"):
                tab.goto(f"{page.as_uri()}{where}")
                tab.wait_for_function(
                    SHOWN, arg={"#sae": "#table th", "#sae/3": ".card", "#compare": ".classes"}[where]
                )
                assert tab.evaluate("document.documentElement.scrollWidth") <= width
                wide = tab.evaluate(
                    """[...document.querySelectorAll("#table th button, .classes th, .facts dt, .chip")]
                        .filter((e) => e.checkVisibility() && e.scrollWidth > e.clientWidth).map((e) => e.outerHTML)"""
                )
                assert wide == [], (width, where)
