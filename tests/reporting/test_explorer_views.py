"""The explorer's scatter and map, features that are dead, and counterparts in another feature set, in a browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmmono.commands.explorer.page import ExploredFeatures
from mmmono.core.modality_names import ModalityNames
from mmmono.modality import CLASSES
from tests.reporting.browser import opened
from tests.reporting.made_up import CAPTIONS, FEATURES, RARE, explored, write
from tests.reporting.test_explorer import count, listed, read


def view(tab: Any, name: str) -> Any:
    """Choose a view; its canvas."""
    tab.locator("#table tbody tr[data-feature]").first.wait_for()
    tab.locator(f"#views [data-view='{name}']").click()
    canvas = tab.locator("#view canvas[tabindex]")
    canvas.wait_for()
    return canvas


def drag(tab: Any, canvas: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag between two places of an element, each a share of its width and height."""
    box = canvas.bounding_box()
    (x0, y0), (x1, y1) = ((box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in (start, end))
    tab.mouse.move(x0, y0)
    tab.mouse.down()
    tab.mouse.move((x0 + x1) / 2, (y0 + y1) / 2)
    tab.mouse.move(x1, y1)
    tab.mouse.up()


def numbers(page: Path, *columns: str) -> list[np.ndarray]:
    table = read(page, "sae/table")
    return [np.array(table[column], dtype=float) for column in columns]


def place(tab: Any, view: str, feature: int) -> tuple[float, float]:
    """Where a feature is drawn, in pixels of the window."""
    tab.wait_for_function(f"views.plots.{view}.px?.length > {feature}")
    x, y = tab.evaluate(f"[views.plots.{view}.px[{feature}], views.plots.{view}.py[{feature}]]")
    box = tab.locator("#view canvas[tabindex]").bounding_box()
    return box["x"] + x, box["y"] + y


def painted(tab: Any, x: float, y: float) -> bool:
    """Whether the lower canvas has any color around a place of the window."""
    return bool(
        tab.evaluate(
            """([x, y]) => {
                const canvas = document.querySelector("#view canvas"), box = canvas.getBoundingClientRect();
                const scale = canvas.width / box.width;
                const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
                probe.drawImage(canvas, 3 - (x - box.x) * scale, 3 - (y - box.y) * scale);
                const { data } = probe.getImageData(0, 0, 7, 7);
                return data.some((value, i) => i % 4 === 3 && value > 0);
            }""",
            [x, y],
        )
    )


def test_a_box_on_the_scatter_filters_the_list(browser: Any, page: Path) -> None:
    mds, shared = numbers(page, "mds", "sharedness")
    with opened(browser, page, "#sae") as tab:
        canvas = view(tab, "scatter")
        drag(tab, canvas, (0.4, 0.1), (0.9, 0.6))
        low, high, least, most = (
            float(tab.locator(f"#{end}").input_value()) for end in ("low", "high", "sharedLow", "sharedHigh")
        )
        assert 0 < low < high < 1
        inside = (mds >= low) & (mds <= high) & (shared >= least) & (shared <= most)
        assert 0 < inside.sum() < FEATURES - 1
        assert count(tab) == inside.sum()
        assert set(listed(tab)) <= set(np.flatnonzero(inside).tolist())
        # What was chosen here is chosen in the histogram too, and can be typed.
        tab.locator("#views [data-view='histogram']").click()
        assert tab.locator("#view svg rect.pale").count() > 0
        tab.locator("#sharedHigh").fill("")
        tab.locator("#sharedLow").fill("0.5")
        assert count(tab) == ((mds >= low) & (mds <= high) & (shared >= 0.5)).sum()
        canvas = view(tab, "scatter")
        box = canvas.bounding_box()
        tab.mouse.click(box["x"] + box["width"] - 3, box["y"] + box["height"] - 36)  # a click on nothing takes it away
        assert count(tab) == FEATURES


def test_each_point_lies_where_its_scores_say_and_opens_its_feature(browser: Any, page: Path) -> None:
    mds, shared = numbers(page, "mds", "sharedness")
    with opened(browser, page, "#sae") as tab:
        view(tab, "scatter")
        xs, ys = np.array([place(tab, "scatter", feature) for feature in range(FEATURES - 1)]).T
        assert np.array_equal(np.argsort(xs, kind="stable"), np.argsort(mds[:-1], kind="stable"))
        assert np.array_equal(np.argsort(-ys, kind="stable"), np.argsort(shared[:-1], kind="stable"))
        assert all(painted(tab, x, y) for x, y in zip(xs[::7], ys[::7], strict=True))
        alone = int(np.argmax(mds[:-1]))  # the one furthest right
        tab.mouse.move(xs[alone], ys[alone])
        tip = tab.locator("#view .tip")
        tip.wait_for()
        assert tip.inner_text().startswith(f"{alone} ")
        tab.mouse.click(xs[alone], ys[alone])
        tab.locator(f".card[data-feature='{alone}']").wait_for()
        assert "Not drawn: 1 without a score" in tab.locator("#about").inner_text()  # the silent one


def test_the_map_shows_places_and_what_is_active_together(
    browser: Any, page: Path, sets: list[ExploredFeatures]
) -> None:
    x, y = numbers(page, "x", "y")
    with opened(browser, page, "#sae") as tab:
        canvas = view(tab, "map")
        drag(tab, canvas, (0.1, 0.1), (0.55, 0.7))
        box = tab.evaluate("state.filter.place")
        inside = (x >= box["x0"]) & (x <= box["x1"]) & (y >= box["y0"]) & (y <= box["y1"])
        assert 0 < inside.sum() < FEATURES - 1
        assert count(tab) == inside.sum()
        assert "Not drawn: 1 without a place" in tab.locator("#about").inner_text()
        tab.locator("#around").click()
        assert count(tab) == FEATURES
        feature = int(np.nanargmax(x))
        tab.mouse.move(*place(tab, "map", feature))
        together = sets[1].likeness.together.features[feature]
        tab.wait_for_function("views.plots.map.hoverLinks.length > 0")
        assert tab.evaluate("views.plots.map.hoverLinks.map(([other]) => other)") == [
            i for i in together.tolist() if i >= 0
        ]
        tab.mouse.click(*place(tab, "map", feature))
        tab.locator(f".card[data-feature='{feature}']").wait_for()
        tab.wait_for_function("views.plots.map.links.length > 0")
        tab.locator("#sets a", has_text="raw").click()  # the other set has no chosen feature, and its own places
        tab.wait_for_function("state.set === 'raw' && views.plots.map.px.length === 40")
        assert tab.evaluate("views.plots.map.links.length") == 0


def test_a_box_can_be_made_moved_and_removed_by_keys(browser: Any, page: Path) -> None:
    with opened(browser, page, "#sae") as tab:
        view(tab, "scatter")
        assert tab.evaluate("document.activeElement.tagName") == "CANVAS"  # choosing a view goes there
        tab.keyboard.press("Enter")
        first = tab.evaluate("views.plots.scatter.box")
        assert count(tab) < FEATURES
        tab.keyboard.press("ArrowRight")
        tab.keyboard.press("Shift+ArrowUp")
        second = tab.evaluate("views.plots.scatter.box")
        assert second["x0"] > first["x0"]
        assert second["y0"] == pytest.approx(first["y0"])
        assert second["y1"] > first["y1"]
        assert tab.evaluate("state.feature") is None  # the arrows moved the box, not the choice
        tab.keyboard.press("Escape")
        assert count(tab) == FEATURES
        tab.keyboard.press("ArrowDown")  # without a box they choose a feature
        tab.locator(".card[data-feature='0']").wait_for()


def test_views_of_what_was_not_computed_say_how_to_have_it(browser: Any, page: Path) -> None:
    with opened(browser, page, "#raw") as tab:
        tab.locator("#table tbody tr[data-feature]").first.wait_for()
        tab.locator("#views [data-view='scatter']").click()
        assert "make section-2.1" in tab.locator("#view .hint").inner_text()
        assert not tab.locator("#shared-range").is_visible()


def test_dead_features_are_counted_marked_and_listed(browser: Any, page: Path) -> None:
    with opened(browser, page, "#sae") as tab:
        tab.locator("#table tbody tr[data-feature]").first.wait_for()
        assert tab.locator("#health").inner_text() == (
            f"{FEATURES - 2} of {FEATURES} features have a class · 1 rare: fewer than 10 independent pairs activate them · "
            "1 silent: no pair activates them."
        )
        assert count(tab) == FEATURES  # they are in the list
        for name in ("ImgD", "TextD", "CrossD"):
            tab.locator("#classes button", has_text=name).click()
        assert listed(tab) == [FEATURES - 2, FEATURES - 1]
        assert tab.locator("#table tbody tr.rare").count() == 1
        tab.locator("#classes button", has_text="silent").click()
        assert listed(tab) == [FEATURES - 2]
        tab.goto(f"{page.as_uri()}#sae/{FEATURES - 2}")
        card = tab.locator(f".card[data-feature='{FEATURES - 2}']")
        card.wait_for()
        assert f"Rare: {RARE} independent pairs activate it, fewer than 10." in card.inner_text()
        assert card.locator(".probabilities").count() == 0  # it has no class
        tab.goto(f"{page.as_uri()}#sae/{FEATURES - 1}")
        tab.locator(f".card[data-feature='{FEATURES - 1}'] .note", has_text="Silent").wait_for()


def test_the_card_has_probabilities_of_classes_and_other_seeds(browser: Any, page: Path) -> None:
    with opened(browser, page, "#sae/23") as tab:
        card = tab.locator(".card[data-feature='23']")
        card.wait_for()
        text = card.locator(".probabilities").inner_text().replace("\u00a0", " ")
        assert "ImgD 33 % · CrossD 50 % · TextD 17 %" in text
        assert "not in all, r 0.27" in card.locator(".facts").inner_text()
    with opened(browser, page, "#raw/23") as tab:
        card = tab.locator(".card[data-feature='23']")
        card.wait_for()
        assert card.locator(".probabilities").count() == 0
        assert "other seeds" not in card.locator(".facts").inner_text()


def test_counterparts_in_another_feature_set(browser: Any, page: Path, sets: list[ExploredFeatures]) -> None:
    found, back = (one.likeness.counterparts for one in reversed(sets))
    r, other = found["raw"].r.numpy(), found["raw"].features.numpy()
    with opened(browser, page, "#compare", width=1440) as tab:
        rows = tab.locator("#counterparts .matches tbody tr")
        rows.first.wait_for()
        kept = r >= found["raw"].chance
        classes = [of.dominance.partition.class_of() for of in reversed(sets)]
        both = [(classes[0][i], classes[1][other[i]]) for i in np.flatnonzero(kept)]
        live = [pair for pair in both if "dead" not in pair]
        same = np.mean([one == two for one, two in live])
        chance = sum(np.prod([np.mean([pair[side] == of for pair in live]) for side in (0, 1)]) for of in CLASSES)
        scores = [np.array(read(page, f"{name}/table")["mds"], dtype=float) for name in ("sae", "raw")]
        classed = [i for i in np.flatnonzero(kept) if "dead" not in (classes[0][i], classes[1][other[i]])]
        alike = np.corrcoef(scores[0][classed], scores[1][other[classed]])[0, 1]
        text = tab.locator("#counterparts [role=status]").inner_text()
        mutual = [i for i in np.flatnonzero(kept) if int(back["sae"].features[other[i]]) == i]
        assert text == (
            f"{kept.sum()} of {FEATURES - 1} features of sae that are not silent have a counterpart in raw; "
            f"{len(mutual)} of these are its counterpart too (⇄); of {len(live)} where both have a class, "
            f"{100 * same:.1f} % have the same; "
            f"{100 * chance:.1f} % would if classes had nothing to do with counterparts; "
            f"the dominance of both correlates with r {alike:.2f}.".replace("-", "−")
        )
        assert rows.count() == min(50, kept.sum())
        strongest = int(np.argmax(r))
        assert rows.first.locator("td").nth(0).inner_text().startswith(str(strongest))
        assert rows.first.locator("td").nth(1).inner_text().startswith(str(other[strongest]))
        tab.locator("#counterparts label", has_text="mutual").click()
        tab.wait_for_function(
            f"document.querySelectorAll('#counterparts .matches tbody tr').length === {min(50, len(mutual))}"
        )
        tab.locator("#counterparts input[type=number]").fill("1.01")
        tab.locator("#counterparts input[type=number]").press("Tab")
        tab.locator("#counterparts", has_text="lower the least correlation").wait_for()
        tab.locator("#counterparts select").first.select_option("raw")  # the other way round
        tab.locator("#counterparts [role=status]", has_text="features of raw").wait_for()
        rows.first.locator("button").click()
        tab.wait_for_function("document.querySelectorAll('#compare .card').length === 2")
        assert "#compare/raw:" in tab.url
    with opened(browser, page, f"#sae/{strongest}") as tab:
        link = tab.locator(".neighbors.others a")
        link.wait_for()
        assert link.get_attribute("href") == f"#raw/{other[strongest]}"
        assert f"r {r[strongest]:.2f}, chance 0.25" in link.inner_text()


def test_one_feature_set_says_how_to_have_two(browser: Any, tmp_path: Path) -> None:
    page = write(tmp_path, [explored("sae", 30)])
    with opened(browser, page, "#compare") as tab:
        tab.locator("#counterparts", has_text="with two").wait_for()
        assert tab.locator("#counterparts canvas").count() == 0


def test_modalities_are_called_as_the_dataset_calls_them(browser: Any, tmp_path: Path) -> None:
    modalities = ModalityNames("audio", "lyrics")
    page = write(tmp_path, [explored("sae", FEATURES)], modalities=modalities)
    with opened(browser, page, "#sae/5", 1440) as tab:
        tab.locator(".card[data-feature='5']").wait_for()
        text = tab.locator("body").inner_text()
        assert "Audio samples that activate it most" in text
        assert "Lyrics samples that activate it most" in text
        assert "audio samples ↑" in text
        assert "0 lyrics, 1 audio" in text
        assert tab.locator("#classes button").first.inner_text().startswith("AudioD")
        said = text + " ".join(tab.locator("[title]").evaluate_all("all => all.map(e => e.title)"))
        captions = re.compile("|".join(map(re.escape, sorted(CAPTIONS, key=len, reverse=True))))
        tab.goto(f"{page.as_uri()}#compare")
        tab.locator("#compare section").first.wait_for()
        said += tab.locator("body").inner_text()
        found = re.findall(r".{0,30}\b(?:images?|texts?|ImgD|TextD)\b.{0,30}", captions.sub("", said), re.IGNORECASE)
        assert found == []
