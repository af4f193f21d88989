"""Figures as a paper needs them: vectors, one font size, embedded fonts, colors that all readers can tell apart."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

from mmmono.analyses.adversarial import figures as adversarial
from mmmono.analyses.text_to_image import figures as text_to_image
from mmmono.analyses.validate import figures as validate
from mmmono.reporting.panels import panels
from mmmono.reporting.style import CLASS_COLORS, MODALITY_COLORS, RANDOM_COLOR, SERIES_COLORS, SIZE, STYLE, save_figure

REPOSITORY = Path(__file__).resolve().parents[2]
CAPTIONS = ("costs $5 & 50 % of x_1^2 {a}\\b ~", "狗在草地上奔跑", "كلب يركض שלום", "👍🏽 🐼 emoji", "naïve Ω ≤ ½")

# Deuteranopia as Machado, Oliveira and Fernandes (2009, Table 1) simulate it: a matrix on linear RGB, at severity 1.
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)
PROTANOPIA = np.array(
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
)
TOLD_APART = 15  # ΔE*ab; about 2.3 is just noticeable, side by side


def lab(color: str, eyes: np.ndarray) -> np.ndarray:
    """CIELAB of a color as eyes see it."""
    rgb = np.array(to_rgb(color))
    linear = np.clip(eyes @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4), 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = to_xyz @ linear / np.array([0.9505, 1, 1.089])
    fx, fy, fz = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


def difference(one: str, other: str, eyes: np.ndarray) -> float:
    return float(np.linalg.norm(lab(one, eyes) - lab(other, eyes)))


@pytest.mark.parametrize("eyes", [np.eye(3), DEUTERANOPIA, PROTANOPIA], ids=["all cones", "deuteranopia", "protanopia"])
@pytest.mark.parametrize(
    "palette",
    [
        {**CLASS_COLORS, "random": RANDOM_COLOR},
        MODALITY_COLORS,
        dict(enumerate(SERIES_COLORS)),
        validate.SET_COLORS,
        adversarial.COLORS,
        text_to_image.COLORS,
    ],
    ids=["classes", "modalities", "series", "validation", "attacks", "generation"],
)
def test_colors_beside_one_another_can_be_told_apart(palette: dict[object, str], eyes: np.ndarray) -> None:
    for one, other in itertools.combinations(set(palette.values()), 2):
        assert difference(one, other, eyes) > TOLD_APART, (one, other)


def test_the_simulation_knows_a_pair_that_is_not_told_apart() -> None:
    assert difference("#999999", "#009E73", np.eye(3)) > 40
    assert difference("#999999", "#009E73", DEUTERANOPIA) < TOLD_APART  # grey and bluish green


def test_lab_is_colorimetric() -> None:
    np.testing.assert_allclose(lab("#ffffff", np.eye(3)), [100, 0, 0], atol=0.02)
    np.testing.assert_allclose(lab("#ff0000", np.eye(3)), [53.24, 80.09, 67.20], atol=0.1)  # a published value


def test_no_figure_has_a_size_or_a_palette_of_its_own() -> None:
    """All text has the size of the style; what is no grey comes from its colors."""
    known = {*CLASS_COLORS.values(), *MODALITY_COLORS.values(), *SERIES_COLORS, RANDOM_COLOR}
    files = [
        *(REPOSITORY / "mmmono" / "analyses").rglob("figures.py"),
        *(REPOSITORY / "mmmono" / "reporting").glob("*.py"),
    ]
    assert len(files) > 20
    for file in files:
        text = file.read_text()
        if file.name != "style.py":
            assert not re.search(r"fontsize=|labelsize|\bsize=[\d.]+", text), file
        colors = set(re.findall(r"#[0-9A-Fa-f]{6}", text))
        assert all(color.upper() in known or len({color[1:3], color[3:5], color[5:7]}) == 1 for color in colors), file


def drawn(folder: Path, captions: tuple[str, ...]) -> tuple[Path, Path]:
    """A figure with text in every place, and captions in all of them."""
    with plt.rc_context(STYLE):
        figure, axes = panels(2, 2.2, (captions[0], captions[1]))
        for axis, caption in zip(axes, captions, strict=False):
            axis.plot([0, 1, 2], [3, 1, 2], label=caption, color=CLASS_COLORS["ImgD"])
            axis.set_title(caption, loc="left")
            axis.set_xticks(range(3), [caption[:6], "b", "c"])
            axis.legend(title="which")
        axes[0].text(1, 2, captions[-1])
        figure.suptitle(" ".join(captions))
    png, pdf = save_figure(figure, folder / "figure")
    return png, pdf


@pytest.mark.parametrize("captions", [("plain", "words"), CAPTIONS], ids=["ASCII", "all scripts"])
def test_a_pdf_is_vectors_in_one_font_size(tmp_path: Path, captions: tuple[str, ...]) -> None:
    with matplotlib.rc_context({"pdf.compression": 0}):
        png, pdf = drawn(tmp_path, captions)
    content = pdf.read_bytes()
    assert png.stat().st_size > 1000
    assert b"/Subtype /Image" not in content  # no pixels
    assert b"/Subtype /Type3" not in content  # which some publishers refuse
    assert b"/FontFile2" in content  # embedded
    sizes = {float(size) for size in re.findall(rb"/F[\w-]+ ([\d.]+) Tf", content)}
    assert sizes == {float(SIZE)}


def test_a_figure_is_the_same_file_each_time(tmp_path: Path) -> None:
    first, second = (drawn(tmp_path / name, CAPTIONS) for name in ("a", "b"))
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
