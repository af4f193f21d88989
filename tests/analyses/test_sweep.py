"""What is shown of a sweep, from its tables alone."""

import itertools
import os
from pathlib import Path
from types import SimpleNamespace

from mmmono.analyses.interpretability import INTERPRETABILITY
from mmmono.analyses.sweep import SWEEP
from mmmono.analyses.sweep.analysis import _measured
from mmmono.core.artifacts import Artifact, Artifacts
from mmmono.pipeline.analysis import shown_tables
from mmmono.reporting.result import Result
from mmmono.reporting.tables import save_table

RUNS = [
    {"dictionary": "ncl", "k": None, "expansion": 1, "steps": 20, "fvu": None, "l0": 8.3, "front": False},
    {"dictionary": "sae", "k": 2, "expansion": 1, "steps": 20, "fvu": 0.7, "l0": 2.0, "front": True},
    {"dictionary": "sae", "k": 2, "expansion": 1, "steps": 20, "fvu": 0.8, "l0": 2.0, "front": False},
]
SETTINGS = {
    "ncl": {"expansion": "1", "lr": "0.0001", "seed": "0", "training.patience": "5", "similarity": "cosine"},
    "sae-0": {"k": "2", "expansion": "1", "lr": "0.0002", "seed": "0", "training.patience": "5"},
    "sae-1": {"k": "2", "expansion": "1", "lr": "0.0002", "seed": "0", "training.patience": "9"},
}


def result(root: Path, mono: float | None = None) -> Result:
    folder = root / "results" / "sweep-x"
    metrics = {"active": 16.0, "dead_share": 0.0, "loss": None}
    rows = [
        {**run, **metrics, "mono_corrected": mono, "artifact": name} for run, name in zip(RUNS, SETTINGS, strict=True)
    ]
    save_table(rows, folder / "runs", list(SWEEP.columns["runs"]))
    long = [{"artifact": of, "setting": key, "value": v} for of, own in SETTINGS.items() for key, v in own.items()]
    save_table(long, folder / "settings", list(SWEEP.columns["settings"]))
    return Result(folder, {"embedder": None if mono is None else "offline"})


def test_settings_that_differ_are_shown_beside_the_metrics(tmp_path: Path) -> None:
    [(_, title, rows)] = shown_tables(SWEEP, result(tmp_path))
    assert title == "3 dictionaries, means over images and texts"
    # Neither settings that all share, nor those of the trainer, nor metrics that none has.
    assert list(rows[0]) == [
        "dictionary", "k", "expansion", "lr", "steps", "FVU", "L0", "active", "dead share", "Pareto",
    ]  # fmt: skip
    assert [row["lr"] for row in rows] == ["0.0001", "0.0002", "0.0002"]
    assert [row["FVU"] for row in rows] == ["", 0.7, 0.8]
    assert [row["k"] for row in rows] == ["", 2, 2]
    assert [row["Pareto"] for row in rows] == ["", "×", ""]


def test_remarks_say_what_is_missing(tmp_path: Path) -> None:
    for name in ("sae-9.partial", "sae-8.partial", "other-7.partial"):
        (tmp_path / "dictionaries" / name).mkdir(parents=True)
    without = list(SWEEP.remarks(result(tmp_path)))
    assert without[0].startswith("no Mono: run experiments/interpretability.py")
    assert without[1].startswith("2 trainings are unfinished")
    assert [remark[:10] for remark in SWEEP.remarks(result(tmp_path, 0.1))] == ["2 training"]


def test_the_figure_is_drawn_from_the_tables(tmp_path: Path) -> None:
    [(name, figure)] = SWEEP.draw(result(tmp_path))
    assert name == "sweep"
    assert len(figure.axes) == 1
    points = [tuple(point) for dots in figure.axes[0].collections for point in dots.get_offsets()]
    assert sorted(points) == [(2.0, 0.7), (2.0, 0.8)]
    [(_, measured)] = SWEEP.draw(result(tmp_path, 0.1))
    assert measured.axes[1].get_ylabel() == "Mono − chance (offline)"


def test_mono_of_other_live_features_is_not_mixed_in(tmp_path: Path) -> None:
    """`mds.min_pairs` says which features are averaged; of results that cover as much, the newest counts."""
    features, artifacts = {"store": "0"}, Artifacts(tmp_path)

    def measured(min_pairs: int, *dictionaries: str) -> Artifact:
        recipe = {
            "features": features, "embedder": "offline-0", "interpretability": {"m": 20}, "mds": {"min_pairs": min_pairs},
            "sets": [{"name": "sae", "dictionary": digest} for digest in dictionaries], **INTERPRETABILITY.versions,
        }  # fmt: skip
        made = artifacts.build("results", f"interpretability-{len(list(tmp_path.rglob('recipe.json')))}", recipe, noted)
        os.utime(made.path / "recipe.json", (next(clock),) * 2)
        return made

    def noted(folder: Path) -> None:
        (folder / "note").touch()

    clock = itertools.count(1000)
    workspace = SimpleNamespace(artifacts=artifacts)
    first, other = measured(10, "a"), measured(100, "a")
    found = _measured(workspace, features, {"a", "b"}, None)  # type: ignore[arg-type]
    assert [artifact.path for artifact in found] == [other.path]
    second = measured(10, "b")
    found = _measured(workspace, features, {"a", "b"}, None)  # type: ignore[arg-type]
    assert [artifact.path for artifact in found] == [first.path, second.path]
