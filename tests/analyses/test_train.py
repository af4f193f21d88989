"""What is shown of a training, from a dictionary's folder alone."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mmmono.analyses.train import TRAIN
from mmmono.pipeline.analysis import shown_figures, shown_tables
from mmmono.reporting.result import Result
from mmmono.reporting.training_figures import training_curves


def history() -> pd.DataFrame:
    made = pd.DataFrame({"pairs": [100.0, 200.0], "step": [1.0, 2.0]})
    for modality, values in (("image", [9.0, 5.0]), ("text", [8.0, 4.0])):
        for metric in ("active", "l0", "fvu"):
            made[f"val/{modality}/{metric}"] = values
    return made


def result(folder: Path, kind: str) -> Result:
    history().to_parquet(folder / "history.parquet")
    (folder / "training_curves.png").touch()
    return Result(folder, {"kind": kind}, "clip_rn50", "cc3m")


def curves(figure: Any) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}


def test_curves_show_what_the_history_holds(tmp_path: Path) -> None:
    figure = training_curves(history(), "sae")
    assert curves(figure) == {"image": [9.0, 5.0], "text": [8.0, 4.0]}
    assert figure.axes[0].get_xlim()[1] >= 200
    [(name, drawn)] = TRAIN.draw(result(tmp_path, "sae"))
    assert name == "training_curves"
    assert curves(drawn) == curves(figure)


def test_metrics_are_those_of_the_last_validation(tmp_path: Path) -> None:
    [(name, title, rows)] = shown_tables(TRAIN, result(tmp_path, "ncl"))
    assert (name, title) == ("training-ncl", "At the last validation, ncl")
    shown = {row["metric"]: row["value"] for row in rows}
    assert shown == {
        "steps": 2, "image/active": 5.0, "image/l0": 5.0, "image/fvu": 5.0,
        "text/active": 4.0, "text/l0": 4.0, "text/fvu": 4.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "number"), [("sae", "Figure 11"), ("ncl", "Figure 12"), ("my_sae", "As Figures 11 and 12")]
)
def test_the_papers_figures_have_their_numbers(tmp_path: Path, kind: str, number: str) -> None:
    [(file, caption)] = shown_figures(TRAIN, result(tmp_path, kind))
    assert file == tmp_path / "training_curves.png"
    assert caption == f"{number}, {kind}: active dimensions over training."


def test_what_ended_a_training_is_reported(tmp_path: Path) -> None:
    made = result(tmp_path, "sae")
    pd.DataFrame([{"steps": 2, "ended_by": "min_steps"}]).to_parquet(tmp_path / "end.parquet")
    [(_, _, rows)] = shown_tables(TRAIN, made)
    assert [(row["metric"], row["value"]) for row in rows][:2] == [("steps", 2), ("ended by", "min_steps")]
