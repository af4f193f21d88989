"""The explorer's files, and the page in a browser, on features made up here."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmmono.commands.explorer.page import ExploredFeatures, ExplorerWriter
from mmmono.commands.explorer.results import embedders
from mmmono.core.artifacts import Artifact
from mmmono.modality import CLASSES, score_intervals
from mmmono.reporting.style import CLASS_COLORS
from tests.reporting.browser import opened
from tests.reporting.explorer_speed import FEATURES as MANY
from tests.reporting.explorer_speed import filtering, opening, page_of_many
from tests.reporting.made_up import CAPTIONS, FEATURES, MADE, PAIRS, RARE, thumbnail


def read(page: Path, name: str) -> Any:
    """What a data file assigns."""
    text = (page.parent / "data" / f"{name}.js").read_text()
    match = re.fullmatch(r"explorerData\[(\"[^\"]*\")\]=(.*);\n", text, re.DOTALL)
    assert match is not None
    assert json.loads(match[1]) == name
    return json.loads(match[2])


def test_files_hold_what_was_computed(page: Path, sets: list[ExploredFeatures]) -> None:
    index = read(page, "index")
    assert [info["name"] for info in index["sets"]] == ["raw", "sae"]
    for info, one in zip(index["sets"], sets, strict=True):
        partition = one.dominance.partition
        table = read(page, f"{one.name}/table")
        for name in CLASSES:
            assert info[name] == len(partition[name]) == table["class"].count(name)
        np.testing.assert_allclose(table["mds"][:-1], one.dominance.scores.scores[:-1], rtol=1e-3)
        assert table["mds"][-1] is None  # the silent one
        for bound, of in zip(("low", "high"), score_intervals(one.dominance.scores), strict=True):
            np.testing.assert_allclose(table[bound][:-1], of[:-1], rtol=1e-3)
            assert table[bound][-1] is None
        assert table["class"][-2:] == ["dead", "dead"]
        assert table["groups"][-2:] == [RARE, 0]
        np.testing.assert_allclose(table["energy"], one.energy, rtol=1e-3)
        assert one.likeness.places is not None
        np.testing.assert_allclose(
            np.array([table["x"], table["y"]], float).T, one.likeness.places, rtol=1e-3, atol=1e-4
        )
        if one.probability is not None:
            np.testing.assert_allclose(table["probability_ImgD"], one.probability["ImgD"], rtol=1e-3)
        for other, found in read(page, f"{one.name}/counterparts").items():
            assert found["feature"] == one.likeness.counterparts[other].features.tolist()
            np.testing.assert_allclose(found["r"], one.likeness.counterparts[other].r, rtol=1e-3)
        assert ("sharedness" in table) == ("shared_q" in table) == info["shared"] == (one.sharedness is not None)
        if one.sharedness is not None:
            for key, values in zip(("sharedness", "shared_q"), one.sharedness, strict=True):
                found = np.array(table[key], dtype=float)
                np.testing.assert_allclose(found, values, rtol=1e-3, equal_nan=True)
        assert ("mono_image" in table) == info["mono"] == (one.mono is not None)
        assert ("match" in table) == ("consensus" in table) == (one.consensus is not None)
        if one.consensus is not None:
            assert table["consensus"] == one.consensus.consensus.tolist()
            np.testing.assert_allclose(table["match"], one.consensus.match, rtol=1e-3)
        assert ("name" in table) == ("auroc_text" in table) == (one.named is not None)
        if one.named is not None:
            assert table["name"] == one.named.words
            np.testing.assert_allclose(table["auroc_image"], one.named.auroc["image"], rtol=1e-3)
        files = sorted((page.parent / "data" / one.name).glob("cards-*.js"))
        cards = [card for i in range(len(files)) for card in read(page, f"{one.name}/cards-{i}")]
        assert len(cards) == len(partition)
        texts = read(page, f"{one.name}/texts")
        for feature, card in enumerate(cards):
            rows = one.top["image"].rows[feature]
            assert [row for row, _, _ in card["images"]] == rows[rows >= 0].tolist()
            assert all(caption == CAPTIONS[row] for row, _, caption in card["images"] + card["texts"])
            assert [texts["captions"][n] for n in texts["features"][feature]] == [c for _, _, c in card["texts"]]
            if feature == len(cards) - 1:
                assert "histogram" not in card
                assert card["neighbors"] == card["together"] == []
                continue
            assert [other for other, _ in card["together"]] == [
                other for other in one.likeness.together.features[feature].tolist() if other >= 0
            ]
            for i, modality in enumerate(("image", "text")):
                counts = card["histogram"][modality]
                assert sum(counts) == one.histograms.counts[i, feature].sum()
                assert sum(counts) / PAIRS == pytest.approx(table[modality][feature], rel=1e-3)


def test_each_image_lies_there_once(page: Path, sets: list[ExploredFeatures]) -> None:
    expected = {row for one in sets for row in one.top["image"].rows.flatten().tolist() if row >= 0}
    files = {int(file.stem): file for file in (page.parent / "thumbnails").rglob("*.webp")}
    assert set(files) == expected
    assert all(file.parent.name == str(row // 1000) for row, file in files.items())
    with Image.open(files[min(expected)]) as image:
        assert image.size == (144, 144)
        assert np.abs(np.asarray(image)[72, 72].astype(int) - thumbnail(min(expected)).getpixel((0, 0))).max() < 12


def test_the_page_escapes_and_has_the_figures_colors(page: Path) -> None:
    html = page.read_text()
    assert "<title>Features of model &lt;x&gt; on data</title>" in html
    assert f"--ImgD:{CLASS_COLORS['ImgD']};" in html
    assert "http" not in html
    assert "http" not in (page.parent / "app.js").read_text()


def test_no_images_are_asked_for_where_there_are_none(tmp_path: Path, sets: list[ExploredFeatures]) -> None:
    writer = ExplorerWriter(tmp_path, CAPTIONS, False)
    writer.add(sets[0])
    assert writer.rows(sets[0]) == []
    page = writer.finish("words", {"pairs": PAIRS, "seed": 0})
    assert read(page, "index")["thumbnails"] is False
    assert not (tmp_path / "thumbnails").exists()


def count(tab: Any) -> int:
    return int(tab.locator("#count").inner_text().split(" of ")[0].replace(",", ""))


def listed(tab: Any) -> list[int]:
    return [int(n) for n in tab.locator("#table tbody tr[data-feature] td.feature").all_inner_texts()]


def test_filters_sorting_and_a_feature(browser: Any, page: Path, sets: list[ExploredFeatures]) -> None:
    one = sets[1]
    partition = one.dominance.partition
    scores = np.array(read(page, "sae/table")["mds"], dtype=float)  # with the digits that the page has
    with opened(browser, page, "#sae") as tab:
        tab.locator("#table tbody tr[data-feature]").first.wait_for()
        assert count(tab) == FEATURES
        tab.locator("#classes button", has_text="CrossD").click()
        assert count(tab) == FEATURES - len(partition["CrossD"])
        tab.locator("#reset").click()
        assert count(tab) == FEATURES

        # A range by brush: from the middle to the right edge are scores above the middle of the axis.
        box = tab.locator("#distribution svg").bounding_box()
        tab.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 60)
        tab.mouse.down()
        tab.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 60, steps=4)
        tab.mouse.move(box["x"] + box["width"], box["y"] + 60, steps=4)
        tab.mouse.up()
        low, high = (float(tab.locator(f"#{end}").input_value()) for end in ("low", "high"))
        assert 0.5 < low < high
        assert count(tab) == ((scores >= low) & (scores <= high)).sum() > 0
        assert tab.locator("#distribution svg rect.pale").count() > 0
        box = tab.locator("#distribution svg").bounding_box()
        tab.mouse.click(box["x"] + 100, box["y"] + 60)  # a click takes the range away
        assert count(tab) == FEATURES
        tab.locator("#low").fill("0.55")
        assert count(tab) == (scores >= 0.55).sum()
        tab.keyboard.press("Escape")

        tab.locator("#sure").check()
        assert count(tab) == (one.q_value <= 0.05).sum()
        tab.locator("#reset").click()
        tab.locator("#table th button", has_text="MDS").click()
        order = np.argsort(-np.nan_to_num(scores, nan=-1), kind="stable")
        assert listed(tab)[:10] == order[:10].tolist()
        tab.locator("#table th button", has_text="MDS").click()
        order = np.argsort(np.nan_to_num(scores, nan=2), kind="stable")
        assert listed(tab)[:10] == order[:10].tolist()
        assert tab.locator("#table th[aria-sort='ascending']").inner_text().startswith("MDS")

        assert sets[1].sharedness is not None
        shared = np.flatnonzero(sets[1].sharedness[1] <= 0.05)
        assert 10 < len(shared) < FEATURES
        tab.locator("#shared").check()
        assert count(tab) == len(shared)
        tab.locator("#table th button", has_text=re.compile("^shared$")).click()
        scored = np.array(read(page, "sae/table")["sharedness"], dtype=float)[shared]
        assert listed(tab)[:5] == shared[np.argsort(-scored, kind="stable")][:5].tolist()
        tab.locator("#shared").uncheck()
        tab.locator("#table th button", has_text="MDS").click()
        tab.locator("#table th button", has_text="MDS").click()
        tab.locator("#sets a", has_text="raw").click()
        tab.locator("#shared").wait_for(state="hidden")  # it was not computed for this set
        tab.locator("#sets a", has_text="sae").click()
        tab.locator("#shared").wait_for()

        first = int(order[0])
        tab.locator("#table tbody tr[data-feature]").first.click()
        card = tab.locator("#card .card")
        card.wait_for()
        assert f"sae feature {first}" in card.locator("h2").inner_text()
        assert card.locator(".thumbnails img").count() == int(one.top["image"].found[first])
        assert card.locator(".texts li").first.inner_text().endswith(CAPTIONS[int(one.top["text"].rows[first, 0])])
        tab.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth === 144)")
        assert tab.url.endswith(f"#sae/{first}")
        # Along the table by keyboard, in its order.
        tab.keyboard.press("ArrowDown")
        tab.locator(f".card[data-feature='{order[1]}']").wait_for()
        tab.keyboard.press("ArrowUp")
        tab.locator(f".card[data-feature='{first}']").wait_for()
        tab.locator(".neighbors a").first.click()
        tab.locator(f".card[data-feature='{int(one.likeness.neighbors.features[first, 0])}']").wait_for()


def test_names_stand_in_the_table_and_on_the_card(browser: Any, page: Path) -> None:
    """Where features were named, and only there."""
    with opened(browser, page, "#sae/5") as tab:
        facts = tab.locator(".card[data-feature='5'] .facts")
        facts.wait_for()
        assert "word 5" in facts.inner_text()
        assert f"names tested by {MADE['named']}" in tab.locator("#made").inner_text()
        tab.locator("#table th button", has_text="name").first.click()
        shown = tab.locator("#table tbody td.named").first.inner_text()
        assert shown == "word 1"
    with opened(browser, page, "#sae/4") as tab:
        tab.locator(".card[data-feature='4']").wait_for()
        assert "unnamed" in tab.locator(".card[data-feature='4'] .facts").inner_text()
    with opened(browser, page, "#raw/5") as tab:
        tab.locator(".card[data-feature='5']").wait_for()
        assert "name" not in tab.locator(".card[data-feature='5'] .facts").inner_text()


def test_a_card_has_the_interval_that_certainty_prints(browser: Any, page: Path, sets: list[ExploredFeatures]) -> None:
    """Wilson's, within 0 and 1: a normal one has no width where a modality wins every pair."""
    low, high = score_intervals(sets[1].dominance.scores)
    with opened(browser, page, "#sae/5") as tab:
        tab.locator(".card[data-feature='5']").wait_for()
        shown = tab.locator(".card[data-feature='5'] .facts div", has_text="MDS").first.inner_text()
        assert f"[{low[5]:.2f}, {high[5]:.2f}]" in shown
    silent = len(low) - 1
    with opened(browser, page, f"#sae/{silent}") as tab:
        tab.locator(f".card[data-feature='{silent}']").wait_for()
        assert "[" not in tab.locator(f".card[data-feature='{silent}'] .facts").inner_text()


def test_the_page_says_which_embedders_are_not_independent(tmp_path: Path) -> None:
    made = [
        Artifact(tmp_path, {"embedder": embedder, "independent": independent}, False)
        for embedder, independent in (("my-own-0af3", True), ("clip", False), ("paper-12", False))
    ]
    found = embedders([*made, None])
    assert found == "clip (not independent), my-own, paper (not independent)"
    assert embedders([None]) is None


def test_only_consensus_features(browser: Any, page: Path, sets: list[ExploredFeatures]) -> None:
    """The choice is there where other seeds were compared, and only there."""
    assert sets[1].consensus is not None
    chosen = sets[1].consensus.consensus
    with opened(browser, page, "#sae", width=1900) as tab:
        tab.locator("#table tbody tr[data-feature]").first.wait_for()
        tab.locator("#consensus").check()
        assert count(tab) == chosen.sum() < FEATURES
        assert listed(tab)[:5] == np.flatnonzero(chosen)[:5].tolist()
        tab.locator("#table th button", has_text="seeds r").click()  # the highest first
        assert listed(tab)[0] == FEATURES - 1
        tab.locator("#classes button", has_text="CrossD").click()
        others = torch.tensor([of != "CrossD" for of in sets[1].dominance.partition.class_of()])
        assert count(tab) == (chosen & others).sum()
        tab.goto(f"{page.as_uri()}#raw")
        tab.locator("#consensus").wait_for(state="hidden")
        tab.locator("#reset").click()
        assert not tab.locator("#consensus").is_checked()
        assert count(tab) == 40
        assert tab.locator("#table th", has_text="seeds r").count() == 0


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("dog", [r"\bdog"]),
        ("CAT red", [r"\bcat", r"\bred"]),
        ("émeu", ["émeu"]),
        ("(raw)", [r"\(raw\)"]),
        ("xyz", ["xyz"]),
    ],
)
def test_search_finds_the_features_whose_top_captions_hold_it(
    browser: Any, page: Path, sets: list[ExploredFeatures], query: str, words: list[str]
) -> None:
    expected = [
        feature
        for feature, rows in enumerate(sets[1].top["text"].rows.tolist())
        if any(all(re.search(w, CAPTIONS[row], re.IGNORECASE) for w in words) for row in rows if row >= 0)
    ]
    with opened(browser, page, "#sae") as tab:
        tab.locator("#table tbody tr[data-feature]").first.wait_for()
        tab.keyboard.press("/")
        tab.keyboard.type(query)
        tab.wait_for_function(f"document.querySelector('#count').textContent.startsWith('{len(expected)} of')")
        assert listed(tab) == expected[: len(listed(tab))]
        assert tab.locator("#nothing").is_visible() == (not expected)
        if expected:
            marked = tab.locator("#table tbody tr[data-feature] mark").first.inner_text()
            assert marked.casefold() in query.casefold()
        tab.keyboard.press("Escape")
        assert count(tab) == FEATURES


def test_a_link_to_a_feature_holds_on_reload(browser: Any, page: Path) -> None:
    with opened(browser, page, "#sae/65") as tab:
        for _ in range(2):
            tab.locator(".card[data-set='sae'][data-feature='65']").wait_for()
            assert tab.locator("#table tr[aria-current='true']").get_attribute("data-feature") == "65"
            assert tab.title().startswith("sae feature 65")
            tab.reload()
        tab.locator("#search").fill("3")  # a number goes there
        tab.keyboard.press("Enter")
        tab.locator(".card[data-feature='3']").wait_for()
        tab.go_back()
        tab.locator(".card[data-feature='65']").wait_for()
        tab.goto(f"{page.as_uri()}#sae/69")  # the silent one
        assert "No image activates it." in tab.locator(".card[data-feature='69']").inner_text()
        tab.goto(f"{page.as_uri()}#sae/100000")  # no such feature
        tab.locator("#card .hint").wait_for()


def test_feature_sets_and_pinned_features_side_by_side(browser: Any, page: Path, sets: list[ExploredFeatures]) -> None:
    with opened(browser, page, "#raw/7") as tab:
        tab.locator(".card[data-feature='7']").wait_for()
        tab.keyboard.press("p")
        tab.locator("#sets a", has_text="compare (1)").click()
        for one in sets:
            panel = tab.locator(f"#compare section[data-set='{one.name}']").first
            panel.wait_for()
            text = panel.inner_text()
            counts = {name: len(one.dominance.partition[name]) for name in CLASSES} | {"rare": 1, "silent": 1}
            assert counts.pop("dead") == 2
            for name, number in counts.items():
                assert re.search(rf"{name}\s+{number} \(", text), (name, text)
            assert panel.locator("svg rect").count() > 10
        tab.locator("#compare form select").select_option("sae")
        tab.locator("#compare form input").fill("12")
        tab.locator("#compare form button").click()
        tab.locator("#compare .card[data-set='sae'][data-feature='12']").wait_for()
        assert tab.url.endswith("#compare/raw:7,sae:12")
        tab.reload()
        tab.locator("#compare .card[data-set='sae'][data-feature='12']").wait_for()
        assert tab.locator("#compare .card").count() == 2
        tab.locator("button[aria-label='Unpin raw feature 7']").click()
        tab.wait_for_function("document.querySelectorAll('#compare .card').length === 1")
        tab.locator("#compare label", has_text="same scale").click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_one_thing_at_a_time(browser: Any, page: Path, scheme: str) -> None:
    with opened(browser, page, "#sae", width=390, color_scheme=scheme) as tab:
        row = tab.locator("#table tbody tr[data-feature='9']")
        row.wait_for()
        assert not tab.locator("#card").is_visible()
        row.locator("a").click()
        tab.locator(".card[data-feature='9']").wait_for()
        assert not tab.locator("#table").is_visible()
        tab.locator(".back").click()
        row.wait_for()
        for where in ("#sae", "#sae/9", "#compare/sae:9"):
            tab.goto(f"{page.as_uri()}{where}")
            assert tab.evaluate("document.documentElement.scrollWidth") <= 390  # nothing sticks out
        background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (scheme == "light")


def test_everything_has_a_name_for_those_who_hear_the_page(browser: Any, page: Path) -> None:
    with opened(browser, page, "#sae/5") as tab:
        tab.locator(".card").wait_for()
        nameless = tab.evaluate(
            """[...document.querySelectorAll("button, a, input, select, img, svg[role=img]")].filter(e => !(
                e.textContent.trim() || e.getAttribute("aria-label") || e.getAttribute("alt") || e.labels?.length
            )).map(e => e.outerHTML)"""
        )
        assert nameless == []


@pytest.mark.slow
def test_sixteen_thousand_features_open_and_filter_quickly(browser: Any, tmp_path: Path) -> None:
    """Times are printed, not judged; what makes it quick is: few rows in the document, no card before it is asked for."""
    page = page_of_many(tmp_path)
    asked: list[str] = []
    times = {"open": 1000 * opening(browser, page)}
    with opened(browser, page) as tab:
        tab.locator("#table tbody tr[data-feature]").first.wait_for()
        assert count(tab) == MANY
        assert tab.locator("#table tbody tr").count() < 80
        tab.on("request", lambda request: asked.append(request.url))
        times |= {act: found["least"] for act, found in filtering(tab).items()}
        assert asked == []
        tab.locator("#reset").click()
        start = time.perf_counter()
        tab.locator("#search").fill("horse")
        tab.locator("#table mark").first.wait_for()
        times["search"] = 1000 * (time.perf_counter() - start)
        assert [url.rsplit("/", 1)[1] for url in asked] == ["texts.js"]
        tab.goto(f"{page.as_uri()}#sae/8000")
        tab.locator(".card[data-feature='8000']").wait_for()
        cards = [url for url in asked if "cards-" in url]
        assert [url.rsplit("/", 1)[1] for url in cards] == [f"cards-{8000 // 32}.js"]
        tab.evaluate("document.getElementById('scroller').scrollTop = 1e9")
        tab.locator("#table tr[aria-rowindex]").last.wait_for()
        assert tab.locator("#table tbody tr").count() < 80
    print("16,384 features, milliseconds:", {name: round(value, 1) for name, value in times.items()})
