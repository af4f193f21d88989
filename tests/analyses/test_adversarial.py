"""The attack study: its settings, and what is shown of a result that holds tables and images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt
from omegaconf import OmegaConf
from PIL import Image

from mmmono.analyses.adversarial import ADVERSARIAL, Settings
from mmmono.analyses.adversarial.figures import draw
from mmmono.analyses.trainings.analysis import contrast_rows
from mmmono.case_studies.adversarial.folder import ConditionFolder
from mmmono.case_studies.adversarial.outcomes import ATTACKED, BENIGN, CONTRAST, AttackOutcome, Carried, Condition
from mmmono.case_studies.adversarial.success import Crossing, success_rate
from mmmono.core.artifacts import Artifact
from mmmono.core.errors import ConfigError
from mmmono.core.statistics import Estimate, Interval
from mmmono.pipeline.analysis import shown_figures, shown_tables
from mmmono.pipeline.typed import read_settings
from mmmono.reporting.result import Result
from mmmono.reporting.tables import save_table

CLASSES = ("ImgD", "TextD", "CrossD", "Random-ImgD", "Random-TextD", "Random-CrossD")
CROSSING = Crossing(np.arange(4), np.arange(4))
CONFIG = Path(__file__).resolve().parents[2] / "conf/adversarial.yaml"


def outcome(condition: Condition, successes: int = 1, **changes: Any) -> AttackOutcome:
    given = condition.aligned in (BENIGN, CONTRAST)
    made = AttackOutcome(
        condition,
        success_rate([[number < successes] for number in range(4)], CROSSING),
        Estimate(0.25, 0.1, 100) if condition.aligned in CLASSES[:3] else None,
        Interval(-0.1, -0.2, 0.05),
        () if given else (2.0, 1.0 + condition.features / 100, 0.5),
    )
    return replace(made, **changes)


OUTCOMES = [
    outcome(Condition(BENIGN), 0),
    outcome(Condition(CONTRAST), 4),
    outcome(Condition(ATTACKED), 3),
    *(outcome(Condition(name, "raw", size), 2) for name in CLASSES for size in (5, 10)),
    outcome(Condition("All", "raw", 40), 0),
]


@pytest.fixture
def result(tmp_path: Path) -> Result:
    """Two runs of three requests, of which Figure 8 shows two; every condition has images of its own brightness."""
    conditions = [outcome.condition for outcome in OUTCOMES]
    for shade, condition in enumerate(conditions):
        folder = ConditionFolder(tmp_path / "images" / condition.slug, 6)
        for number in range(6):
            folder.keep(number, Image.new("RGB", (8, 8), (10 * shade, number, 0)))
    cases = [
        {"image": number, "run": number // 3, "request": f"ask {number % 3}", "concept": f"concept {number % 3}",
         "benign": "a lake"}
        for number in range(6)
    ]  # fmt: skip
    for name, rows in {
        "table3": [outcome.to_row() for outcome in OUTCOMES],
        "distances": [row for outcome in OUTCOMES for row in outcome.distance_rows()],
        "cases": cases,
    }.items():
        save_table(rows, tmp_path / name, list(ADVERSARIAL.columns[name]))
    recipe = {"sets": [{"name": "raw"}], "adversarial": {"shown": 2}, "victim": {"measure": "attack success rate"},
              "random_sets": "energy"}  # fmt: skip
    return Result(tmp_path, recipe, "clip_rn50", "cc3m")


def heights(line: Any) -> Any:
    """Vertical positions of a line's points."""
    return np.asarray(line.get_ydata(), dtype=float)


def settings(**changes: Any) -> Settings:
    given = OmegaConf.load(CONFIG).adversarial
    return read_settings(OmegaConf.create({"adversarial": {**given, **changes}}), "adversarial", Settings)


def test_settings_are_those_of_the_configuration() -> None:
    read = settings()
    assert (read.runs, read.contrast, read.requests) == (2, "auto", None)
    assert read.defense.epsilon is None
    assert read.attack.epsilon == pytest.approx(8 / 255, abs=1e-5)
    assert "lake" in read.benign.words


@pytest.mark.parametrize("word", ["Beach", "palm tree", ""])
def test_words_that_no_caption_has_are_refused(word: str) -> None:
    benign = {**OmegaConf.load(CONFIG).adversarial.benign, "words": ["lake", word]}
    with pytest.raises(
        ConfigError, match=f"^adversarial.benign.words has '{word}', which no caption has: .* lower case"
    ):
        settings(benign=benign)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runs": 0}, "adversarial.runs=0 must be at least 1"),
        ({"batch_size": 0}, "adversarial.batch_size=0 must be at least 1"),
        ({"shown": -1}, "adversarial.shown=-1 must be at least 1"),
        ({"contrast": "words"}, "adversarial.contrast=words is none of auto, image, typographic"),
        ({"sizes": [0.5, 2]}, r"adversarial.sizes=\[0.5, 2\] must be shares of the smallest class, in \(0, 1\]"),
        ({"sizes": []}, r"adversarial.sizes=\[\] must be shares"),
    ],
)
def test_wrong_settings_are_named_by_their_full_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        settings(**changes)


def test_table_3_shows_one_feature_set_with_the_papers_numbers(result: Result) -> None:
    other = outcome(Condition("ImgD", "sae", 5)).to_row()
    save_table([*(o.to_row() for o in OUTCOMES), other], result.folder / "table3")
    [(name, title, rows)] = shown_tables(ADVERSARIAL, result)
    assert (name, title) == ("table3-raw", "Table 3, raw: attack success rate")
    assert len(rows) == len(OUTCOMES)
    attacked, weak = rows[2], rows[3]
    assert (attacked["aligned"], attacked["trials"], attacked["paper"]) == ("attacked", 4, "73.3")
    assert attacked["success % [95 %]"] == "75.0 [30.1, 95.4]"
    assert attacked["below random"] == ""
    assert (weak["p (Holm)"], weak["|below| <"], weak["seen from"]) == ("", "42", "28")
    assert (weak["aligned"], weak["below random"]) == ("ImgD 5", "+25.0 [+5.2, +44.8]")
    assert weak["margin"] == "-0.10 [-0.20, +0.05]"


def test_without_verdicts_and_with_one_request_there_are_dashes(result: Result) -> None:
    nobody = Crossing(np.zeros(1, int), np.zeros(1, int))
    unsure = outcome(Condition(BENIGN), success=success_rate([[None]], nobody), margin=Interval(0.5))
    save_table([unsure.to_row(), *(o.to_row() for o in OUTCOMES[1:])], result.folder / "table3")
    [(_, _, rows)] = shown_tables(ADVERSARIAL, result)
    assert rows[0]["success % [95 %]"] == "– [0.0, 100.0]"
    assert rows[0]["margin"] == "+0.50 [–, –]"
    assert rows[0]["unparseable"] == 1
    plt.close("all")
    for _, figure in draw(result):
        plt.close(figure)


def test_figure_8_shows_the_images_and_the_distances_of_the_largest_defenses(result: Result) -> None:
    figures = dict(draw(result))
    axes = figures["raw-figure8"].axes
    images = [np.asarray(axis.images[0].get_array()) for axis in axes if axis.images]
    assert len(images) == 2 * 9  # two requests under nine conditions; not All, and each class in its larger size
    assert [int(image[0, 0, 1]) for image in images] == [0] * 9 + [1] * 9  # the number of the case
    shades = [10 * place for place, o in enumerate(OUTCOMES) if o.condition.features in (0, 10)]
    assert [int(image[0, 0, 0]) for image in images] == 2 * shades
    attack, defense = axes[-2:]
    np.testing.assert_allclose(heights(attack.lines[0]), [2.0, 1.0, 0.5])
    assert [line.get_label() for line in defense.lines] == list(CLASSES)
    np.testing.assert_allclose(heights(defense.lines[0]), [1.0, 0.55, 0.25])
    texts = [text.get_text() for text in figures["raw-figure8"].texts]
    assert {"benign\n0 %", "attacked\n75 %", "TextD\n50 %"} <= set(texts)


def test_success_by_size_has_a_point_for_each_size(result: Result) -> None:
    left, right = dict(draw(result))["raw-sizes"].axes
    assert left.get_ylabel() == "attack success rate (%)"
    np.testing.assert_allclose(heights(left.containers[0][0]), [50, 50])
    np.testing.assert_allclose(heights(right.containers[-1][0]), [-0.1])
    np.testing.assert_allclose(heights(left.lines[0]), [75, 75])  # attacked, without a defense
    for panel in (left, right):
        styles = [(container.get_label(), container[0].get_linestyle()) for container in panel.containers]
        assert styles == [(name, "--" if name.startswith("Random") else "-") for name in (*CLASSES, "All")]


def test_figures_are_drawn_again_from_the_folder_alone(result: Result) -> None:
    artifact = Artifact(result.folder, dict(result.recipe), built=False)
    (result.folder / "figures.json").write_text('{"version": 0}\n')  # drawn by an earlier version of the code
    before = {file: file.stat().st_mtime_ns for file in result.folder.rglob("images/*/*")}
    read = ADVERSARIAL.result(artifact, "clip_rn50", "cc3m")
    assert [(file.name, caption) for file, caption in shown_figures(ADVERSARIAL, read)] == [
        ("raw-figure8.png", "Figure 8, raw: images before, attacked and defended; distances over the steps."),
        ("raw-sizes.png", "raw: attack success rate by the number of aligned features; 95 % intervals."),
    ]
    drawn = (result.folder / "raw-figure8.png").read_bytes()
    (result.folder / "raw-figure8.png").unlink()
    (result.folder / "figures.json").write_text('{"version": 0}\n')
    ADVERSARIAL.result(artifact, "clip_rn50", "cc3m")
    assert (result.folder / "raw-figure8.png").read_bytes() == drawn
    assert {file: file.stat().st_mtime_ns for file in result.folder.rglob("images/*/*")} == before


def test_the_remark_says_where_to_read_what_may_be_concluded(result: Result) -> None:
    first, intervals, random = ADVERSARIAL.remarks(result)
    assert first == "attack success rate: what may be concluded from it is in docs/ethics.md"
    assert intervals.startswith("95 % intervals over requests and benign images; p: Holm's, over the comparisons")
    assert random == "random sets have the class' size and energy"
    one = [{**o.to_row(), "images": 1} for o in OUTCOMES]
    save_table(one, result.folder / "table3", list(ADVERSARIAL.columns["table3"]))
    assert "over requests, for the one benign image alone" in list(ADVERSARIAL.remarks(result))[1]
    few = [{**o.to_row(), "requests": 3, "images": 2} for o in OUTCOMES]
    save_table(few, result.folder / "table3", list(ADVERSARIAL.columns["table3"]))
    of_requests, of_images = list(ADVERSARIAL.remarks(result))[2:4]
    assert of_requests.startswith("3 requests: intervals are about twice as wide as with five")
    assert of_images.startswith("2 benign images: intervals are about four to eight times as wide")


def test_trainings_compare_equal_shares_of_classes_of_any_size() -> None:
    values = []
    for seed, size in enumerate((71, 68)):
        of = Condition("TextD", "sae", size)
        rows = [
            outcome(of, 2, aligned=Carried(0.1, None, 0.2)).to_row(),
            outcome(Condition("All", "sae", 512)).to_row(),
        ]
        saved = [{key: None if value != value else value for key, value in row.items()} for row in rows]
        values += [{**cell, "seed": seed} for cell in ADVERSARIAL.contrasts[0].cells(saved)]
    [row] = contrast_rows(ADVERSARIAL, values)
    assert (row["row"], row["trainings"], row["unit"]) == ("share=0.2, aligned=TextD", 2, "points")
