"""Figures draw any text: no mathematics, no warning, no box where a transliteration says more."""

import warnings
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from matplotlib import pyplot as plt
from PIL import Image

from mmmono.reporting import figure_text
from mmmono.reporting.contact_sheets import FeatureCard, contact_sheet
from mmmono.reporting.figure_text import drawable, fit_text, shortened, width, wrapped
from mmmono.reporting.style import STYLE, save_figure
from tests.nasty import NASTY, nasty_text


@pytest.fixture(autouse=True)
def _every_warning_fails() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture(params=["the system's fonts", "no other font"])
def _fonts(request: pytest.FixtureRequest) -> object:
    if request.param == "no other font":
        with patch.object(figure_text, "_families_by_letter", lambda: {}):
            figure_text._font_of.cache_clear()
            yield
    else:
        yield
    figure_text._font_of.cache_clear()


def card(captions: list[str]) -> FeatureCard:
    image = Image.new("RGB", (60, 40), (200, 30, 30))
    return FeatureCard("sae", 34, "TextD", 0.321, images=[(image, 1.0)], captions=[(c, 1.0) for c in captions], asked=1)


@pytest.mark.slow
@pytest.mark.usefixtures("_fonts")
@pytest.mark.parametrize("start", range(0, len(NASTY), 12))
def test_a_sheet_of_any_captions(start: int, tmp_path: Path) -> None:
    captions = list(NASTY[start : start + 12])
    figure = contact_sheet([card([*captions, "\ufeff" + captions[0]])])
    for file in save_figure(figure, tmp_path / "sheet"):
        assert file.stat().st_size > 1000


@pytest.mark.slow
@given(text=nasty_text())
@settings(max_examples=6, deadline=None)
def test_every_place_of_a_figure_takes_any_text(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    with plt.rc_context({**STYLE, "figure.constrained_layout.use": False}):
        figure, axes = plt.subplots(1, 2, sharey=True, figsize=(4, 2.5))
        bars = axes[0].barh(range(2), [1, 2])
        axes[0].set_yticks(range(2), [text, "plain"])
        axes[0].set_xticks([0, 1], [text, text])
        axes[0].set_title(text, loc="left")
        axes[1].set_xlabel(text)
        figure.suptitle(text)
        figure.supylabel(text)
        axes[0].legend([bars], [text], title=text)
    png, _ = save_figure(figure, tmp_path_factory.getbasetemp() / "any")
    assert np.asarray(Image.open(png)).std() > 1


def test_a_long_title_and_label_go_on_in_a_second_line() -> None:
    """Their ends say what is drawn: which share, and what the numbers are."""
    with plt.rc_context(STYLE):
        figure, _ = plt.subplots(1, 1, figsize=(3, 2), layout="constrained")
        figure.suptitle("people who work in the open air, by share of TextD")
        figure.supxlabel("z of the log-odds against the other texts; numbers are counts")
        fit_text(figure)
    assert figure.get_suptitle().split("\n") == ["people who work in the open air, by share", "of TextD"]
    assert figure.get_supxlabel().endswith("numbers are counts")


@pytest.mark.usefixtures("_fonts")
def test_letters_without_a_font_are_transliterated() -> None:
    with patch.object(figure_text, "_families_by_letter", lambda: {}):
        figure_text._font_of.cache_clear()
        assert drawable("狗 dog") == "Gou dog"
        assert drawable("कुत्ता") == "kutta"
        assert drawable("👍🏽") == ":thumbsup:"
        assert drawable("\U000f0000") == "?"
        assert drawable("two\nlines") == "two\nlines"
    assert drawable("naïve Ω ≤ я") == "naïve Ω ≤ я"


@given(nasty_text(), nasty_text())
def test_lines_are_as_wide_as_they_may_be(one: str, other: str) -> None:
    text = f"{one} {other}"
    for cells, lines in ((13, 3), (58, 2), (20, None)):
        found = wrapped(text, cells, lines)
        assert all(width(line) <= cells for line in found)
        assert lines is None or len(found) <= lines
        whole = wrapped(text, cells)
        assert "".join(whole).replace(" ", "") == "".join(drawable(text).split())
        if len(found) < len(whole):
            assert found[-1].endswith("…")


def test_lines_end_between_words_where_they_can() -> None:
    assert wrapped("a dog runs on the grass", 10) == ["a dog runs", "on the", "grass"]
    assert wrapped("a dog runs on the grass", 10, lines=2) == ["a dog runs", "on the …"]
    assert wrapped("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]
    assert wrapped("", 10) == []
    assert shortened("x" * 25, 10) == "x" * 8 + " …"
    assert shortened("short", 10) == "short"
