"""What is shown of trainings, from tables alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmmono.analyses.ablation import ABLATION
from mmmono.analyses.consequences import CONSEQUENCES
from mmmono.analyses.names import NAMES
from mmmono.analyses.trainings import TRAININGS, about_analysis, in_words
from mmmono.analyses.trainings.analysis import contrast_rows
from mmmono.core.modality_names import ModalityNames
from mmmono.pipeline.analysis import shown_tables
from mmmono.pipeline.contrasts import Contrast
from mmmono.reporting.result import Result
from mmmono.reporting.tables import save_table

NAMED, ON_IMAGES = "names that hold", "AUROC on images above others"


def result(folder: Path, seeds: int = 5, modalities: ModalityNames | None = None) -> Result:
    """Names of a set over trainings: counts; CrossD is above others in all of them, ImgD in none, TextD in one alone."""
    rng = np.random.default_rng(0)
    above = {"ImgD": 0.1 * (-1) ** np.arange(seeds), "CrossD": 0.1 + 0.001 * rng.standard_normal(seeds)}
    values = []
    for seed in range(seeds):
        summary = [
            {"feature_set": "sae", "class": of, "named": 10 + seed, "auroc_image": 0.5 + own[seed], "chance_image": 0.5}
            for of, own in above.items()
        ]
        summary.append({"feature_set": "sae", "class": "TextD", "named": 3, "auroc_image": None, "chance_image": None})
        if seed == 0:
            summary[-1] |= {"auroc_image": 0.6, "chance_image": 0.5}
        for contrast in NAMES.contrasts[:2]:
            values += [{**cell, "seed": seed} for cell in contrast.cells(summary)]
    save_table(contrast_rows(NAMES, values), folder / "contrasts", list(TRAININGS.columns["contrasts"]))
    save_table(values, folder / "values", list(TRAININGS.columns["values"]))
    recipe = {"of": "names", "seeds": list(range(seeds)), "sets": [{"name": "sae"}]}
    return Result(folder, recipe, modalities=modalities or ModalityNames())


def test_what_stands_is_shown_and_the_rest_is_counted(tmp_path: Path) -> None:
    made = result(tmp_path)
    [(name, title, rows)] = shown_tables(TRAININGS, made)
    assert (name, title) == ("trainings-names-sae", "What stands of names, sae, over 5 trainings")
    assert [(row["what"], row["of"]) for row in rows] == [
        (NAMED, "ImgD"), (NAMED, "CrossD"), (NAMED, "TextD"), (ON_IMAGES, "CrossD"), ("1 other contrast does not stand", ""),
    ]  # fmt: skip
    # Of a count, no number says that there is nothing.
    assert [row["p (Holm)"] for row in rows] == ["", "", "", "< 0.001", ""]
    assert [row["same side"] for row in rows] == ["", "", "", "5 of 5", ""]
    assert rows[0]["mean [95 %]"].startswith("12 [10, 14")
    said = " ".join(TRAININGS.remarks(made))
    assert "1 of 2 contrasts stand" in said
    assert "0.1 of the 1 families" in said
    assert "no evidence of nothing" in said
    assert "other pairs are not covered" in said
    contrasts = {(row["contrast"], row["row"]): row for row in made.rows("contrasts")}
    assert (ON_IMAGES, "class=TextD") not in contrasts  # of one training
    assert contrasts[ON_IMAGES, "class=CrossD"]["compared"] == 2
    assert contrasts[ON_IMAGES, "class=ImgD"]["p_holm"] > 0.5
    assert contrasts[NAMED, "class=ImgD"]["p"] is None


def test_two_trainings_are_few_and_none_have_nothing_to_compare(tmp_path: Path) -> None:
    assert "intervals seven times as wide" in " ".join(TRAININGS.remarks(result(tmp_path / "two", 2)))
    folder = tmp_path / "none"
    for table in ("contrasts", "values"):
        save_table([], folder / table, list(TRAININGS.columns[table]))
    empty = Result(folder, {"of": "gender", "seeds": [0, 1], "sets": [{"name": "sae"}]})
    assert not list(shown_tables(TRAININGS, empty))
    assert not list(TRAININGS.draw(empty))
    assert "no contrast is in two trainings" in " ".join(TRAININGS.remarks(empty))


def test_classes_are_called_as_the_modalities_are(tmp_path: Path) -> None:
    made = result(tmp_path, modalities=ModalityNames("audio", "text"))
    [(_, _, rows)] = shown_tables(TRAININGS, made)
    assert rows[0]["of"] == "AudioD"
    title = "AUROC on audio samples above others"
    assert title in {row["what"] for row in rows}
    [(_, figure)] = TRAININGS.draw(made)
    assert title in {axis.get_title(loc="left") for axis in figure.axes}


@pytest.mark.parametrize(
    ("saved", "shown"),
    [("change=drop, of=TextD", "drop TextD"), ("measure=i2t_r5", "i→t R@5"), ("measure=r10", "R@10"),
     ("measure=effective_rank", "effective rank"),
     ("reference=a, b.png, strength=0.5", "a, b.png strength 0.5"), ("", "")],
)  # fmt: skip
def test_rows_in_words(saved: str, shown: str) -> None:
    assert in_words(saved, ModalityNames()) == shown


def test_the_figure_has_a_panel_for_each_family_and_fills_what_stands(tmp_path: Path) -> None:
    [(name, figure)] = TRAININGS.draw(result(tmp_path))
    assert name == "sae-trainings"
    counts, above = figure.axes[:2]
    assert (counts.get_title(loc="left"), above.get_title(loc="left")) == (NAMED, ON_IMAGES)
    means = [line for line in above.lines if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() == "white" for line in means] == [True, False]
    dots = [line for line in above.lines if line.get_marker() == "." and len(line.get_xdata())]
    assert [len(line.get_xdata()) for line in dots] == [5, 5]
    assert [text.get_text() for text in above.get_yticklabels()] == ["ImgD", "CrossD"]


def test_results_of_an_earlier_version_of_the_analysis_are_not_reported() -> None:
    recipe = {**TRAININGS.versions, "about": about_analysis(NAMES)}
    assert TRAININGS.is_current(recipe)
    assert not TRAININGS.is_current({**recipe, "about": {**recipe["about"], "version": NAMES.version - 1}})
    assert not TRAININGS.is_current({**recipe, "version": TRAININGS.version + 1})


def test_cells_are_differences_of_columns_in_the_rows_that_count() -> None:
    rows = [
        {"feature_set": "sae", "members": "A − B", "strength": 0.5, "change": 0.4, "control": 0.1, "p": 0.2},
        {"feature_set": "sae", "members": "A", "strength": 0.5, "change": 0.4, "control": 0.1, "p": None},
        {"feature_set": "sae", "members": "B − A", "strength": 0.5, "change": None, "control": 0.1, "p": 0.2},
    ]
    contrast = Contrast("moved", "effects", "change", ("members",), ("strength",), minus="control", requires="p")
    [cell] = contrast.cells(rows)
    assert cell.pop("value") == pytest.approx(0.3)
    assert cell == {"feature_set": "sae", "contrast": "moved", "family": "strength=0.5", "row": "members=A − B",
                    "unit": ""}  # fmt: skip
    assert [Contrast("", "", "x", (), kind=kind).null for kind in ("difference", "ratio", "value")] == [0, 1, None]


def test_shares_are_shown_in_points_as_the_analysis_shows_them(tmp_path: Path) -> None:
    """The analysis printed 4.4 points, and this table 0.044; the gap has no points."""
    values = []
    for seed in range(5):
        rows = [
            {"feature_set": "sae", "measure": measure, "change": "drop", "of": "TextD", "delta_random": value}
            for measure, value in (("r1", 0.044 + 0.001 * seed), ("gap", 0.5 + 0.001 * seed))
        ]
        for contrast in CONSEQUENCES.contrasts:
            values += [{**cell, "seed": seed} for cell in contrast.cells(rows)]
    save_table(contrast_rows(CONSEQUENCES, values), tmp_path / "contrasts", list(TRAININGS.columns["contrasts"]))
    save_table(values, tmp_path / "values", list(TRAININGS.columns["values"]))
    recipe = {"of": "consequences", "seeds": list(range(5)), "sets": [{"name": "sae"}]}
    made = Result(tmp_path, recipe)
    [(_, _, [recall, gap])] = shown_tables(TRAININGS, made)
    assert (recall["what"], recall["mean [95 %]"]) == ("change beyond random (points)", "4.6 [4.4, 4.8]")
    assert (recall["from"], recall["to"]) == ("4.4", "4.8")
    assert (gap["what"], gap["mean [95 %]"]) == ("change beyond random", "0.502 [0.5, 0.504]")
    assert made.rows("contrasts")[0]["mean"] == pytest.approx(0.046)  # saved as the analysis saves it
    [(_, figure)] = TRAININGS.draw(made)
    titles = [axis.get_title(loc="left").split("\n")[0] for axis in figure.axes[:2]]
    assert titles == ["change beyond random (points)", "change beyond random"]
    [mean] = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert mean.get_xdata()[0] == pytest.approx(4.6)
    assert {contrast.points is None for contrast in (*ABLATION.contrasts, *CONSEQUENCES.contrasts)} == {False}
