"""docs/extending.md, as it is printed: its files are written into a copy of the project, and its commands are run there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tests.pipeline.conftest import REPOSITORY, newest

PAGE = REPOSITORY / "docs" / "extending.md"
FILE = re.compile(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
MOST = {"analysis": 5, "sparse autoencoder": 3, "dataset": 3, "model": 3}  # files of each example

pytestmark = pytest.mark.slow


def sections() -> dict[str, str]:
    """Text of each example, by what it adds."""
    parts = re.split(r"^## An? (.*)\n", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with all files of the page."""
    folder = tmp_path_factory.mktemp("extended")
    for name in ("mmmono", "conf", "experiments"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path, content in FILE.findall(PAGE.read_text()):
        file = folder / path
        assert not file.exists(), f"{path} is not new"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (folder / "photos").mkdir()
    for i in range(120):
        Image.new("RGB", (24, 16), ((i * 40) % 256, (i * 90) % 256, 120)).save(folder / "photos" / f"{i:03}.jpg")
        (folder / "photos" / f"{i:03}.txt").write_text(f"a {('red', 'green', 'blue')[i % 3]} field, number {i}")
    return folder


def run(project: Path, line: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(project), "COLUMNS": "160"}
    words = [sys.executable, *shlex.split(line)[1:], "trainer=cpu"]
    done = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_example_needs_more_files_than_it_should() -> None:
    assert {name: len(FILE.findall(text)) for name, text in sections().items()} == {
        "analysis": 5, "sparse autoencoder": 2, "dataset": 3, "model": 3,
    }  # fmt: skip
    assert all(len(FILE.findall(text)) <= MOST[name] for name, text in sections().items())


def test_an_analysis_and_an_autoencoder_work_from_the_command_line_to_the_report(project: Path) -> None:
    train, analysis, report = COMMANDS.search(sections()["sparse autoencoder"])[1].splitlines()  # type: ignore[index]
    run(project, train)
    assert "Active features per sample" in run(project, analysis)
    result = newest(project / "artifacts", "sparsity")
    table = pd.read_parquet(result / "sparsity.parquet")
    assert table.feature_set.tolist() == ["raw", "raw", "threshold_sae", "threshold_sae"]
    assert 0 < table.active_features.iloc[-1] < 64
    assert (result / "sparsity.png").exists()
    run(project, report)
    page = newest(project / "artifacts", "report")
    assert "Mean number of active features per image and per text." in (page / "index.html").read_text()
    assert (page / "tables" / "sparsity.md").exists()
    listed = run(project, "python -m mmmono.commands.make --table").splitlines()
    assert any(line.startswith("| `experiments/sparsity.py` | count how many features") for line in listed)
    error = subprocess.run(
        [sys.executable, "experiments/sparsity.py", "sparsity.threshold=-1", "dataset=synthetic"],
        cwd=project, env={**os.environ, "PYTHONPATH": str(project)}, capture_output=True, text=True,
    )  # fmt: skip
    assert error.stderr.strip() == "error: sparsity.threshold=-1 must be at least 0"


def test_a_model_and_a_dataset_work_from_extraction_to_the_report(project: Path) -> None:
    for line in COMMANDS.search(sections()["model"])[1].splitlines():  # type: ignore[index]
        out = run(project, line)
    assert "Report: colors on imagefolder (val)" in out
    page = newest(project / "artifacts", "report")
    html = (page / "index.html").read_text()
    assert "Figure 4" in html
    assert "Figure 1" in html
