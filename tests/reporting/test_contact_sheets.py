from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import AxesImage
from PIL import Image

from mmmono.reporting.contact_sheets import FeatureCard, contact_sheet
from mmmono.reporting.published import published
from mmmono.reporting.style import save_figure


def card(images: int, captions: int, asked: int = 8) -> FeatureCard:
    image = Image.new("RGB", (60, 40), (200, 30, 30))
    return FeatureCard(
        feature_set="sae", feature=34, members="TextD", mds=0.321, asked=asked,
        images=[(image, 1.0)] * images,
        captions=[(f"costs $5 and ${i} more " + "word " * 40 * (i == 1), 1.0) for i in range(captions)],
    )  # fmt: skip


def test_a_sheet_shows_every_image_and_caption(tmp_path: Path) -> None:
    figure = contact_sheet([card(8, 8), card(2, 0)])
    images = [image for axis in figure.axes for image in axis.get_children() if isinstance(image, AxesImage)]
    assert len(images) == 10
    assert all(
        axis.get_window_extent().width == pytest.approx(axis.get_window_extent().height, rel=0.02)
        for axis in figure.axes
    )
    words = [text.get_text() for part in figure.subfigs for text in part.texts]
    assert words.count("sae feature 34: TextD, MDS 0.32") == 2
    assert sum(word.startswith("costs $5 and") for word in words) == 8
    assert any(word.endswith("…") for word in words)  # the long caption is cut, not run over
    assert "only 2 images; no text activates it" in words
    # Nothing is drawn outside the page.
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    page = figure.bbox
    for part in figure.subfigs:
        for text in part.texts:
            box = text.get_window_extent(renderer)
            assert box.x0 >= page.x0 - 1
            assert box.x1 <= page.x1 + 1
            assert box.y0 >= page.y0 - 1
            assert box.y1 <= page.y1 + 1
    png, _ = save_figure(figure, tmp_path / "sheet")
    assert np.asarray(Image.open(png)).std() > 10


def test_published_tables_are_the_papers() -> None:
    table1 = published("table1")
    assert len(table1.rows) == 14
    assert table1.find(samples="text", deletion="TextD")["accuracy"] == 0.683
    assert table1.find(samples="image", deletion="Random", size_of="CrossD")["delta"] == -0.003
    assert table1.find(samples="image", deletion="no such") == {}
    assert table1.difference("clip_vit_h14", "coco") is None
    assert "here: drawingclip on openmoji" in str(table1.difference("drawingclip", "openmoji"))
    table5 = published("table5")
    assert table5.find(feature_set="ncl", samples="text")["embsim"] == 0.21
    assert table5.find(feature_set="raw", model="DeCLIP", samples="image")["winrate"] == 0.005
