"""What is shown of Table 1, from saved tables alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from sklearn.model_selection import StratifiedKFold

from mmmono.analyses.ablation import ABLATION, Settings
from mmmono.analyses.ablation.analysis import _labeled
from mmmono.pipeline.analysis import shown_figures, shown_tables
from mmmono.reporting.result import Result
from mmmono.reporting.style import CLASS_COLORS, RANDOM_COLOR
from mmmono.reporting.tables import save_table

SETS = ("raw", "sae")
TASKS = ("image", "text")
SIZES = {"ImgD": 3, "TextD": 2, "CrossD": 0}
TESTS = ("p", "p_holm", "equivalence")
INTERVALS = ("accuracy", "delta_none", "delta_random")
SETTINGS: dict[str, Any] = {
    "split": "auto", "max_pairs": 100, "folds": None, "n_random": 2, "keep": False, "refit": True,
}  # fmt: skip


def deltas(number: int) -> dict[str, dict[str, float]]:
    """Changes of accuracy by class, different in each of the panels."""
    return {"ImgD": {"Random": -0.01 * number, "ImgD": -0.1 * number}, "TextD": {"Random": -0.02, "TextD": 0.03}}


def row(name: str, task: str, deletion: str, size_of: str | None, **values: float) -> dict[str, object]:
    empty = {f"{key}{end}": None for key in INTERVALS for end in ("", "_low", "_high")}
    bounds = {f"{key}_low": value - 0.01 for key, value in values.items()}
    bounds |= {f"{key}_high": value + 0.02 for key, value in values.items()}
    neurons = SIZES[size_of] if size_of else 0
    of = {"feature_set": name, "task": task, "deletion": deletion, "size_of": size_of, "neurons": neurons}
    beyond = {"p": 0.02, "p_holm": 0.06, "equivalence": 0.05} if "delta_random" in values else dict.fromkeys(TESTS)
    known = {"energy": 0.25, "mismatch": 0.3 if deletion == "Random" else None, "spread": None}
    return {**of, **known, **empty, **values, **bounds, **beyond}


def table1() -> list[dict[str, object]]:
    rows = []
    for number, (name, task) in enumerate([(name, task) for name in SETS for task in TASKS], start=1):
        rows.append(row(name, task, "None", None, accuracy=0.8))
        for size_of in SIZES:
            for deletion in ("Random", size_of):
                delta = deltas(number).get(size_of, {}).get(deletion)
                found = {} if delta is None else {"accuracy": 0.8 + delta, "delta_none": delta}
                if delta is not None and deletion == "TextD":
                    found["delta_random"] = 0.01
                rows.append(row(name, task, deletion, size_of, **found))
    return rows


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Result]:
    """Makes a result that has nothing but its tables and its recipe."""

    def make(
        model: str = "clip_vit_h14", left_out: str = "", label: str = "supercategory", keep: bool = False
    ) -> Result:
        save_table(table1(), tmp_path / "table1", list(ABLATION.columns["table1"]))
        samples = {"pairs": 60, "labels": 3, "label": label, "left_out": left_out}
        save_table([samples], tmp_path / "samples", list(ABLATION.columns["samples"]))
        recipe = {"sets": [{"name": name} for name in SETS], "ablation": {**SETTINGS, "keep": keep}, "label": label,
                  "random_sets": "energy"}  # fmt: skip
        return Result(tmp_path, recipe, model, "coco")

    return make


def test_the_papers_numbers_stand_beside(saved: Callable[..., Result]) -> None:
    tables = {name: (title, rows) for name, title, rows in shown_tables(ABLATION, saved())}
    assert list(tables) == ["table1-raw", "table1-sae"]
    title, rows = tables["table1-sae"]
    assert title == "Table 1, sae"
    assert len(rows) == 14
    [shown] = [r for r in rows if (r["task"], r["deletion"]) == ("text", "TextD")]
    assert shown == {
        "task": "text", "deletion": "TextD", "neurons": 2, "energy %": "25.0",
        "accuracy": "0.830", "Δ none [95 %]": "+3.0 [+2.0, +5.0]",
        "Δ random [95 %]": "+1.0 [+0.0, +3.0]", "p (Holm)": "0.060", "|Δ random| <": "5.0",
        "paper": "0.683", "paper Δ": "-3.0",
    }  # fmt: skip
    # The paper's row is that of the class' size, not merely the next random one.
    random = [r for r in rows if (r["task"], r["deletion"]) == ("image", "Random")]
    assert [r["paper"] for r in random] == ["0.757", "0.756", "0.773"]
    assert [r["accuracy"] for r in random] == ["0.770", "0.780", "none"]


def test_no_p_value_is_printed_as_zero(saved: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{**row, "p_holm": 1e-9 if row["p_holm"] else None} for row in table1()]
    monkeypatch.setattr("tests.analyses.test_ablation.table1", lambda: rows)
    shown = [row["p (Holm)"] for _, _, table in shown_tables(ABLATION, saved()) for row in table]
    assert set(shown) == {"", "< 0.001"}


def test_kept_classes_are_not_compared_with_removed_ones(saved: Callable[..., Result], tmp_path: Path) -> None:
    result = saved(keep=True)
    (tmp_path / "table1.png").touch()
    for _, _, rows in shown_tables(ABLATION, result):
        assert [r["kept"] for r in rows[:3]] == ["None", "Random", "ImgD"]
        assert {(r["paper"], r["paper Δ"]) for r in rows} == {("", "")}
    [(_, caption)] = shown_figures(ABLATION, result)
    assert "is kept alone" in caption
    [(_, caption)] = shown_figures(ABLATION, saved())
    assert "is removed" in caption


def test_remarks_name_the_labels_that_are_left_out(saved: Callable[..., Result]) -> None:
    remark, random, few = ABLATION.remarks(saved())
    assert remark.startswith(
        "60 pairs, 3 labels (supercategory); 95 % intervals over test samples and random sets, not corrected; p: Holm"
    )
    assert random == (
        "random sets have the class' size and energy; 12 of 12 have no good match (off by up to 30 %): see mismatch"
    )
    assert few.startswith("2 random sets: intervals are about four to eight times as wide as with five")
    assert few.endswith("; ablation.n_random=5")
    remark, *_ = ABLATION.remarks(saved(left_out="a, b"))
    assert ", left out: a, b (fewer than 5 pairs); 95 %" in remark


@pytest.mark.parametrize(
    ("count", "said"), [(1, "intervals hold for this one alone"), (3, "about twice as wide"), (4, "")]
)
def test_few_random_sets_are_told(saved: Callable[..., Result], count: int, said: str) -> None:
    result = saved()
    result.recipe["ablation"]["n_random"] = count
    last = list(ABLATION.remarks(result))[-1]
    assert said in last if said else "random sets have" in last


def test_only_the_papers_model_dataset_and_label_are_the_papers(saved: Callable[..., Result]) -> None:
    paper = "CLIP ViT-H/14 (LAION-2B), 10,000 COCO pairs, supercategories"
    assert list(ABLATION.differences(saved())) == [("Table 1", paper, paper)]
    assert list(ABLATION.differences(saved(label="category"))) == [("Table 1", paper, "clip_vit_h14, coco, category")]
    [(_, _, here)] = ABLATION.differences(saved(model="clip_rn50"))
    assert here == "clip_rn50, coco, supercategory"


def test_the_figure_is_drawn_from_the_tables_alone(saved: Callable[..., Result]) -> None:
    [(name, figure)] = ABLATION.draw(saved())
    assert name == "table1"
    assert [axis.get_title(loc="left") for axis in figure.axes[:2]] == list(SETS)
    assert [axis.get_ylabel().split()[0] for axis in figure.axes[::2]] == list(TASKS)
    assert [axis.get_xlabel() for axis in figure.axes] == ["", "", "removed", "removed"]
    panels = [figure.axes[i] for i in (0, 2, 1, 3)]  # by feature set, then by task, as the rows
    for number, axis in enumerate(panels, start=1):
        drawn = {}
        for points in axis.containers:
            [x], [y] = points.lines[0].get_data()
            drawn[round(x), to_rgb(points.lines[0].get_color())] = y
            [[[_, low], [_, high]]] = points.lines[2][0].get_segments()
            np.testing.assert_allclose([y - low, high - y], [1, 2])
        expected = {}
        for place, (size_of, values) in enumerate(deltas(number).items()):
            expected[place, to_rgb(RANDOM_COLOR)] = 100 * values["Random"]
            expected[place, to_rgb(CLASS_COLORS[size_of])] = 100 * values[size_of]
        assert drawn == pytest.approx(expected)
        assert [text.get_text() for text in axis.texts] == ["none"]
        assert axis.texts[0].get_position() == (2, 0)
        assert [tick.get_text() for tick in axis.get_xticklabels()] == ["ImgD\n3", "TextD\n2", "CrossD\n0"]
    [(_, kept)] = ABLATION.draw(saved(keep=True))
    assert kept.axes[2].get_xlabel() == "kept"


@pytest.mark.parametrize("wrong", [{"folds": 0}, {"folds": 6}, {"n_random": 0}, {"max_pairs": 0}])
def test_wrong_settings_are_named(wrong: dict[str, int]) -> None:
    Settings(**SETTINGS)
    [(name, value)] = wrong.items()
    with pytest.raises(ValueError, match=f"^{name}={value} must "):
        Settings(**SETTINGS | wrong)


def test_no_group_is_in_training_and_test_samples_of_a_fold() -> None:
    """Variants of one drawing, the first of which may have no label: one of each group is classified."""
    groups = np.repeat(np.arange(40), 3)
    label = np.where(groups % 2, "flag", "animal").astype(object)
    label[::3] = ""
    metadata = pd.DataFrame({"key": range(120), "category": label})
    chosen = _labeled(metadata, groups, "category", 1000, 0)
    assert len(chosen.positions) == 40
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(chosen.positions, chosen.labels):
        assert not set(groups[chosen.positions[train]]) & set(groups[chosen.positions[test]])
