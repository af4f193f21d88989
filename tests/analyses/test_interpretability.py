"""What is shown of monosemanticity, from its tables alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection
from matplotlib.container import BarContainer, ErrorbarContainer

from mmmono.analyses.interpretability import CORRECTED, INTERPRETABILITY, METRICS, TABLE5_METRICS, Settings
from mmmono.pipeline.analysis import shown_figures, shown_tables
from mmmono.reporting.result import Result
from mmmono.reporting.tables import save_table

CHANCE = {"mono": 0.15, "embsim": 0.12, "winrate": 0.49}
CLASSES = ("all", "ImgD", "TextD", "CrossD")
LEVELS = {"all": 0.2, "ImgD": 0.3, "TextD": 0.1, "CrossD": None}  # no feature of CrossD is scored


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def result(
    folder: Path,
    model: str = "drawingclip",
    embedder: str = "offline-1234",
    history: bool = True,
    independent: bool = True,
) -> Result:
    averages = [
        {
            "feature_set": name, "samples": modality, "class": members, "features": 9,
            "scored": 0 if LEVELS[members] is None else 7,
            **{metric: None if metric == "ms" else LEVELS[members] for metric in METRICS},
            **{f"{metric}_se": None if LEVELS[members] is None or metric == "ms" else 0.05 for metric in METRICS},
            **{f"{m}_corrected": None if LEVELS[members] is None else LEVELS[members] - CHANCE[m] for m in CORRECTED},
            **{f"{m}_corrected_se": None if LEVELS[members] is None else 0.06 for m in CORRECTED},
            **{f"{m}_chance": CHANCE[m] for m in CORRECTED}, **{f"{m}_chance_se": 0.01 for m in CORRECTED},
            "draw_error": None if LEVELS[members] is None else 0.02,
        }
        for name in ("raw", "sae") for modality in ("image", "text") for members in CLASSES
    ]  # fmt: skip
    differences = [
        {
            "feature_set": name, "samples": modality, "score": score,
            "ImgD_scored": 7, "ImgD_features": 9, "TextD_scored": 0, "TextD_features": 4,
            **dict.fromkeys(TABLE5_METRICS, mean),
            **{f"{metric}_se": None if mean is None else 0.1 for metric in TABLE5_METRICS},
        }
        for name, mean in (("raw", 0.1), ("sae", None))
        for modality, score in (("image", "Visual Mono"), ("text", "Textual Mono"))
    ]  # fmt: skip
    save_table(averages, folder / "table4", list(INTERPRETABILITY.columns["table4"]))
    save_table(differences, folder / "table5", list(INTERPRETABILITY.columns["table5"]))
    if history:
        over = [{**row, "step": step} for step in (30, 0) for row in averages if row["class"] == "all"]
        save_table(over, folder / "over_training", list(INTERPRETABILITY.columns["over_training"]))
    return Result(folder, _recipe(embedder, independent), model)


def _recipe(embedder: str, independent: bool) -> dict[str, Any]:
    sets = [{"name": "raw"}, {"name": "sae"}]
    return {"sets": sets, "embedder": embedder, "independent": independent, "interpretability": {"m": 20}}


def bars(axis: Any) -> list[float]:
    return [bar.get_height() for bars in axis.containers if isinstance(bars, BarContainer) for bar in bars]


def test_figures_are_drawn_from_the_tables(tmp_path: Path) -> None:
    of = result(tmp_path)
    drawn = dict(INTERPRETABILITY.draw(of))
    assert list(drawn) == ["monosemanticity", "modality_monosemanticity", "over_training"]
    for name in drawn:
        (tmp_path / f"{name}.png").touch()
    numbers = [caption.partition(":")[0] for _, caption in shown_figures(INTERPRETABILITY, of)]
    assert numbers == ["Figure 5", "Figure 6", "Figure 13"]


def test_figure_5_has_bars_of_all_features_and_points_of_classes(tmp_path: Path) -> None:
    figure = dict(INTERPRETABILITY.draw(result(tmp_path)))["monosemanticity"]
    axes = figure.axes
    # MS was not computed, so it has no panel.
    assert [axis.get_title(loc="left") for axis in axes[:3]] == ["Mono", "EmbSim", "WinRate"]
    assert len(axes) == 6
    assert bars(axes[0]) == [0.2, 0.2]
    points = [container for container in axes[0].containers if isinstance(container, ErrorbarContainer)]
    drawn = [(point.get_label(), float(point[0].get_ydata()[0])) for point in points[:2]]
    assert drawn == [("ImgD", 0.3), ("TextD", 0.1)]
    for axis, level in zip(axes[:3], CHANCE.values(), strict=True):
        collections = [lines for lines in axis.collections if isinstance(lines, LineCollection)]
        segments = [segment for lines in collections for segment in lines.get_segments() if len(segment) == 2]
        chance = [y for (x, y), (end, _) in segments if end - x == 1]
        assert chance == [level] * 2  # one for each feature set
    low, high = points[0][2][0].get_segments()[0][:, 1]
    assert (low, high) == (pytest.approx(0.25), pytest.approx(0.35))


def test_figure_6_says_none_where_a_class_has_no_scored_feature(tmp_path: Path) -> None:
    figure = dict(INTERPRETABILITY.draw(result(tmp_path)))["modality_monosemanticity"]
    for axis, title in zip(figure.axes, ("Visual Mono", "Textual Mono"), strict=True):
        assert axis.get_title(loc="left").startswith(title)
        assert bars(axis) == [0.1]
        assert [(text.get_text(), text.get_position()[0]) for text in axis.texts] == [("none", 1)]


def test_figure_13_is_in_the_order_of_steps(tmp_path: Path) -> None:
    figure = dict(INTERPRETABILITY.draw(result(tmp_path)))["over_training"]
    assert len(figure.axes) == 4
    lines = figure.axes[0].lines
    assert [list(line.get_xdata()) for line in lines] == [[0, 30]] * 4
    assert [line.get_ydata().tolist() for line in lines if line.get_linestyle() == ":"] == [[CHANCE["embsim"]] * 2] * 2


def test_without_snapshots_there_is_no_figure_13(tmp_path: Path) -> None:
    assert len(list(INTERPRETABILITY.draw(result(tmp_path, history=False)))) == 2


def test_no_scored_feature_at_all_is_drawn_too(tmp_path: Path) -> None:
    of = result(tmp_path, history=False)
    nothing = [{**row, **dict.fromkeys(METRICS)} for row in of.rows("table4")]
    save_table(nothing, tmp_path / "table4", list(INTERPRETABILITY.columns["table4"]))
    figure = dict(INTERPRETABILITY.draw(of))["monosemanticity"]
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["Mono", ""]


def test_the_papers_numbers_are_those_of_the_models_family(tmp_path: Path) -> None:
    for model, printed in (("declip_rn50", "0.009"), ("drawingclip", "-0.007")):
        (_, _, table5), *_ = shown_tables(INTERPRETABILITY, result(tmp_path, model))
        assert [row["feature set"] for row in table5] == ["raw", "raw", "sae", "sae"]
        assert table5[0]["paper EmbSim"] == printed
        assert [row["mono"] for row in table5] == ["0.100 ± 0.100"] * 2 + ["none"] * 2


def test_titles_name_the_embedder(tmp_path: Path) -> None:
    for embedder, name in (("offline-0f", "offline"), ("paper-0f", "paper")):
        _, (file, title, rows), _ = shown_tables(INTERPRETABILITY, result(tmp_path, embedder=embedder))
        assert file == "table4"
        assert title.endswith(f"embedder {name}")
        assert [row["scored"] for row in rows[:4]] == ["7 of 9"] * 3 + ["0 of 9"]


def test_table_4_has_scores_above_chance_first_and_then_the_papers_form(tmp_path: Path) -> None:
    _, (_, title, rows), (name, _, papers) = shown_tables(INTERPRETABILITY, result(tmp_path))
    assert "features with 20 top samples" in title
    assert list(rows[0])[4:] == ["Mono − chance", "EmbSim − chance", "WinRate − chance", "s.e. of draws"]
    assert [rows[1][column] for column in ("Mono − chance", "s.e. of draws")] == ["0.150 ± 0.060", "0.020"]
    assert [rows[3][column] for column in ("Mono − chance", "s.e. of draws")] == ["none", ""]
    assert name == "table4_uncorrected"
    assert [row["class"] for row in papers] == [row["class"] for row in rows]
    assert papers[1]["Mono"] == "0.300 ± 0.050"
    assert papers[1]["chance"] == "Mono 0.150 ± 0.010, EmbSim 0.120 ± 0.010"


def test_table_5_says_how_many_features_of_either_class_are_scored(tmp_path: Path) -> None:
    (_, _, rows), *_ = shown_tables(INTERPRETABILITY, result(tmp_path))
    assert rows[0]["scored"] == "7 of 9 ImgD, 0 of 4 TextD"


def test_an_embedder_that_the_model_is_built_on_is_said_to_be(tmp_path: Path) -> None:
    for embedder, independent, words in (
        ("offline-1", False, "offline, not independent: the towers that drawingclip is built on"),
        ("clip", False, "drawingclip itself, not independent"),
        ("offline-1", True, "embedder offline"),
        ("paper-1", True, "embedder paper"),
    ):
        of = result(tmp_path, embedder=embedder, independent=independent)
        assert all(title.endswith(words) for _, title, _ in shown_tables(INTERPRETABILITY, of))
        assert any("not independent" in remark for remark in INTERPRETABILITY.remarks(of)) != independent
        [(_, _, own)] = INTERPRETABILITY.differences(of)
        assert ("the towers that drawingclip is built on" in own) == (embedder == "offline-1" and not independent)


def test_the_difference_to_the_paper_is_the_embedder(tmp_path: Path) -> None:
    def here(embedder: str) -> str:
        [(setting, paper, own)] = INTERPRETABILITY.differences(result(tmp_path, embedder=embedder))
        assert (setting, paper) == ("embedder of Mono", "ViT-B/16 (in21k) and all-MiniLM-L6-v2")
        return own

    assert here("paper-12") == "ViT-B/16 (in21k) and all-MiniLM-L6-v2"
    assert here("clip") == "drawingclip itself"
    assert here("my-own-12") == "my-own"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"m": 1}, "m=1 must"),
        ({"n_draws": 0}, "n_draws=0 must"),
        ({"ms_pairs": 1}, "ms_pairs=1 must"),
        ({"side": "both"}, "side=both is none"),
    ],
)
def test_settings_are_checked(wrong: dict[str, Any], message: str) -> None:
    right: dict[str, Any] = {
        "m": 20, "n_draws": 5, "random_pool": 1000, "deduplicate": True, "ms": True, "ms_pairs": 20000,
        "over_training": True, "side": "dominant",
    }  # fmt: skip
    Settings(**right)
    with pytest.raises(ValueError, match=f"^{message}"):
        Settings(**{**right, **wrong})
