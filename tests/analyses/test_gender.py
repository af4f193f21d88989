"""The concept study: its settings and samples, and what is shown of a result that holds tables and images."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from omegaconf import OmegaConf
from PIL import Image

from mmmono.analyses.gender import GENDER, Settings
from mmmono.analyses.gender.samples import Samples, by_share, evenly
from mmmono.case_studies.concepts import ConceptLabels, ConceptPair
from mmmono.core.errors import ConfigError
from mmmono.core.statistics import Interval
from mmmono.core.text import file_name
from mmmono.pipeline.analysis import shown_figures, shown_tables
from mmmono.pipeline.typed import read_settings
from mmmono.reporting.result import Result
from mmmono.reporting.tables import save_table

CONFIG = Path(__file__).resolve().parents[2] / "conf/gender.yaml"
PAIR = ConceptPair("female", "male", ("woman", "she"), ("man", "he"))
RED, BLUE = (255, 0, 0), (0, 0, 255)


def removal(samples: str, concept: str, removed: str, drop: Interval) -> dict[str, Any]:
    beyond: dict[str, Any] = {"mismatch": 0.01, **dict.fromkeys(("p", "p_holm", "equivalence"))}
    if not removed.startswith("Random"):
        found = Interval(0.01, -0.02, 0.04).columns("beyond_random")
        beyond = {"mismatch": None, **found, "p": 0.5, "p_holm": 1.0, "equivalence": 0.035}
    return {
        "feature_set": "sae", "samples": samples, "concept": concept, "removed": removed, "neurons": 5, "energy": 0.12,
        **Interval(0.9, 0.85, 0.95).columns("baseline"), **drop.columns("drop"), **beyond,
    }  # fmt: skip


TABLES: dict[str, list[dict[str, Any]]] = {
    "table2": [
        removal(samples, concept, removed, Interval(0.1 + 0.1 * place, 0.05 + 0.1 * place, 0.15 + 0.1 * place))
        for samples in ("image", "text")
        for concept in ("female", "male")
        for place, removed in enumerate(("ImgD", "TextD", "Random"))
    ],
    "figure7": [
        {"feature_set": "sae", "rank": 1, "row": 4, "share": 0.5},
        {"feature_set": "sae", "rank": 0, "row": 9, "share": 0.25},
    ],
    "table6": [
        {"feature_set": "sae", "low": low, "high": high, "group": group, "word": word, "count": count, "elsewhere": 1,
         "z": z}
        for group, low, high in ((0, 0.1, 0.2), (1, 0.3, 0.6))
        for word, count, z in (("rare", 1, 2.5), ("common", 7, 1.5), ("absent", 0, 3.0))
    ],
    "groups": [
        {"feature_set": "sae", "group": 0, "low": 0.1, "high": 0.2, "texts": 11},
        {"feature_set": "sae", "group": 1, "low": 0.3, "high": 0.6, "texts": 12},
    ],
    "labels": [{"a": 40, "b": 30, "confident": 60, "ambiguous": 7, "missing": 2, "of": 90}],
}  # fmt: skip
PAIRED = [
    {"feature_set": "sae", "samples": "image", "class": "ImgD", "share": 0.6, "energy": 0.3,
     **Interval(2.0, 1.5, 2.5).columns("enrichment"), "pairs": 12},
]  # fmt: skip


def result(folder: Path, concepts: Any = ("female", "male"), **tables: list[dict[str, Any]]) -> Result:
    a, b = concepts
    for name, rows in {**TABLES, **tables}.items():
        save_table(rows, folder / name, list(GENDER.columns[name]))
    (folder / "images").mkdir()
    for row, color in ((4, BLUE), (9, RED)):
        Image.new("RGB", (8, 8), color).save(folder / "images" / f"{row}.png")
    recipe = {"sets": [{"name": "sae"}], "concept": {"a": a, "b": b}, "labels": "words", "random_sets": "energy"}
    return Result(folder, recipe, "clip_rn50", "cc3m")


def settings_with(**changes: Any) -> Settings:
    usual: Any = OmegaConf.load(CONFIG)
    return read_settings(OmegaConf.create({"gender": {**usual.gender, **changes}}), "gender", Settings)


def test_settings_are_those_of_the_configuration() -> None:
    settings = settings_with()
    assert (settings.draws, settings.space, settings.shown) == (50, "features", 7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": "pixels"}, "gender.space=pixels is none of features, embeddings"),
        ({"confidence": 1.5}, "gender.confidence=1.5 must lie between 0 and 1"),
        ({"references": 0}, "gender.references=0 must be at least 1"),
        ({"references": 1.5}, "gender.references=1.5 must be a whole number"),
        ({"bins": 0}, "gender.bins=0 must be at least 1"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_with(**changes)


def test_samples_are_the_labeled_rows_and_twins_differ_in_the_concept_alone() -> None:
    captions = ["a woman eats", "skipped", "a dog", "a man eats", "she eats", "a man runs", "A WOMAN, eats"]
    rows = np.array([0, 2, 3, 4, 5, 6])
    a, b = (np.array([row in members for row in rows]) for members in ((0, 4, 6), (3, 5)))
    labels = ConceptLabels(a, b, np.array([0.95, 1, 0.8, 0.9, 1, 1]), ambiguous=0)
    samples = Samples.of(labels, rows, pd.Series(captions), 0.9)
    assert samples.rows.tolist() == [0, 3, 4, 5, 6]
    assert samples.captions == [captions[row] for row in samples.rows]
    assert samples.confident.tolist() == [True, False, True, True, True]
    assert samples.twins(PAIR) == [(0, 1)]  # row 6 would be another twin of row 3, which is used


def test_shares_are_sorted_and_picked_evenly() -> None:
    share = torch.tensor([0.3, float("nan"), 0.1, 0.9, 0.2, 0.5])
    ordered = by_share(share, np.array([True, True, True, False, True, True]))
    assert ordered.tolist() == [2, 4, 0, 5]
    assert evenly(ordered, 2).tolist() == [2, 5]
    assert evenly(ordered, 9).tolist() == [2, 4, 0, 5]
    assert evenly(ordered[:0], 3).tolist() == []


def test_tables_are_shown_with_the_papers_numbers(tmp_path: Path) -> None:
    shown = {name: (title, rows) for name, title, rows in shown_tables(GENDER, result(tmp_path, paired=PAIRED))}
    assert list(shown) == ["table2-female-male-sae", "paired-female-male-sae", "table6-female-male-sae"]
    title, rows = shown["table2-female-male-sae"]
    assert title == "Table 2, sae: female and male"
    assert rows[0] == {
        "from": "image", "concept": "female", "removed": "ImgD 5", "energy %": "12.0",
        "accuracy": "90.0", "drop [95 %]": "+10.0 [+5.0, +15.0]",
        "beyond random": "+1.0 [-2.0, +4.0]", "p (Holm)": "1.000", "|beyond| <": "3.5", "paper's drop": "17.6",
    }  # fmt: skip
    assert (rows[2]["beyond random"], rows[2]["paper's drop"]) == ("", "")
    title, rows = shown["paired-female-male-sae"]
    assert title == "Paired test, sae: 12 pairs that differ in the concept alone"
    assert (rows[0]["class"], rows[0]["ratio"], rows[0]["from"], rows[0]["to"]) == ("ImgD", 2.0, 1.5, 2.5)
    assert shown["table6-female-male-sae"][1][1] == {
        "TextD share": "0.30 to 0.60", "most distinctive": "rare, common", "most frequent": "common, rare",
    }  # fmt: skip


@pytest.mark.parametrize("tables", [{"table6": []}, {"table6": [], "paired": []}])
def test_tables_with_nothing_to_show_are_left_out(tmp_path: Path, tables: dict[str, list[dict[str, Any]]]) -> None:
    """No twins for the paired test, or no difference between them, and too few words to tell any apart."""
    shown = [name for name, _, _ in shown_tables(GENDER, result(tmp_path, **tables))]
    assert shown == ["table2-female-male-sae"]


def test_names_of_tables_are_file_names_whatever_the_concepts_are_called(tmp_path: Path) -> None:
    shown = [(name, title) for name, title, _ in shown_tables(GENDER, result(tmp_path, ("in/out {door}", "?")))]
    assert shown[0] == ("table2-in_out__door_-_-sae", "Table 2, sae: in/out {door} and ?")
    assert all(file_name(name) == name for name, _ in shown)


def test_labels_are_counted_below_the_tables_and_named_as_a_difference(tmp_path: Path) -> None:
    made = result(tmp_path)
    (remark, _, random) = GENDER.remarks(made)
    assert random == "random sets have the class' size and energy"
    assert remark.startswith(
        "40 female and 30 male, of each group one with either label; 7 ambiguous of 90 asked; labels"
    )
    assert list(GENDER.differences(made)) == [
        ("concept (4.1)", "female and male, by an image classifier", "female and male, by words")
    ]


def test_figures_are_drawn_from_tables_and_images_alone(tmp_path: Path) -> None:
    made = result(tmp_path)
    figures: dict[str, Any] = dict(GENDER.draw(made))
    assert list(figures) == ["sae-table2", "sae-figure7", "sae-table6"]
    images, texts = figures["sae-table2"].axes
    drops = [container.lines[0].get_ydata()[0] for container in images.containers]
    assert drops == pytest.approx([10, 10, 20, 20, 30, 30])
    spans = [bar.get_segments()[0][:, 1].tolist() for container in texts.containers for bar in container.lines[2]]
    assert spans[0] == pytest.approx([5, 15])
    shown = figures["sae-figure7"].axes
    assert [axis.get_xlabel() for axis in shown] == ["0.25", "0.50"]  # by rank
    assert [tuple(axis.images[0].get_array()[0, 0]) for axis in shown] == [RED, BLUE]
    words = figures["sae-table6"].axes[1]
    assert [label.get_text() for label in words.get_yticklabels()] == ["common", "rare"]  # the highest z on top
    assert words.get_title(loc="left") == "0.30 to 0.60\n12 texts"
    plt.close("all")


def test_figures_with_nothing_to_show_are_left_out(tmp_path: Path) -> None:
    """No sample activates a feature; and there are groups of texts, but no words that can be told apart."""
    (tmp_path / "none").mkdir()
    nothing = result(tmp_path / "none", figure7=[], groups=[], table6=[])
    assert [name for name, _ in GENDER.draw(nothing)] == ["sae-table2"]
    (tmp_path / "words").mkdir()
    wordless = dict(GENDER.draw(result(tmp_path / "words", table6=[])))
    assert [len(axis.patches) for axis in wordless["sae-table6"].axes] == [0, 0]
    plt.close("all")


def test_a_single_draw_has_no_intervals(tmp_path: Path) -> None:
    once = [{**row, "drop_low": float("nan"), "drop_high": float("nan")} for row in TABLES["table2"]]
    made = result(tmp_path, table2=once)
    assert GENDER.tables[0].rows(made, "sae")[0]["drop [95 %]"] == ""
    assert "sae-table2" in dict(GENDER.draw(made))
    plt.close("all")


def test_captions_name_the_concepts(tmp_path: Path) -> None:
    made = result(tmp_path)
    for name, figure in GENDER.draw(made):
        figure.savefig(tmp_path / f"{name}.png")
        plt.close(figure)
    captions = {file.stem: caption for file, caption in shown_figures(GENDER, made)}
    assert captions["sae-figure7"].startswith("Figure 7, sae: female images by the share of ImgD")
    assert captions["sae-table6"] == "Table 6, sae: words of male texts by the share of TextD."
    assert len(captions) == 3
