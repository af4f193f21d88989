"""docs/extending.md, as it is printed: its files are written into a copy of the project, and its commands are run there."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
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


# Runs each line of stdin, `[log, script or -m module, arguments…]`, in a process that has the libraries of others already.
WARM = """
import json, os, runpy, sys
import lightning, matplotlib.pyplot, open_clip, pandas, scipy.stats, sklearn.linear_model, torch
for line in sys.stdin:
    log, *words = json.loads(line)
    if (child := os.fork()) == 0:
        for number in (1, 2):
            os.dup2(os.open(f"{log}.{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        run = runpy.run_module if words[0] == "-m" else runpy.run_path
        sys.argv = words = words[words[0] == "-m" :]
        run(words[0], run_name="__main__")
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Project:
    """A folder, and a process that runs commands there."""

    folder: Path
    warm: subprocess.Popen[str]

    def status(self, *words: str) -> tuple[int, str, str]:
        """Exit status and both outputs of `python …`."""
        assert self.warm.stdin is not None
        assert self.warm.stdout is not None
        log = self.folder / "log"
        self.warm.stdin.write(json.dumps([str(log), *words]) + "\n")
        self.warm.stdin.flush()
        status = self.warm.stdout.readline()
        assert status, "the process that runs commands has ended"
        out, err = (Path(f"{log}.{number}").read_text() for number in (1, 2))
        return int(status), out, err

    def run(self, line: str) -> str:
        """What a command prints, which must succeed."""
        status, out, err = self.status(*shlex.split(line)[1:], "trainer=cpu")
        assert status == 0, err
        return out


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
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
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "160"}
    with subprocess.Popen(
        [sys.executable, "-c", WARM],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as warm:
        yield Project(folder, warm)


def test_no_example_needs_more_files_than_it_should() -> None:
    assert {name: len(FILE.findall(text)) for name, text in sections().items()} == {
        "analysis": 5, "sparse autoencoder": 2, "dataset": 3, "model": 3,
    }  # fmt: skip
    assert all(len(FILE.findall(text)) <= MOST[name] for name, text in sections().items())


def test_an_analysis_and_an_autoencoder_work_from_the_command_line_to_the_report(project: Project) -> None:
    train, analysis, report = COMMANDS.search(sections()["sparse autoencoder"])[1].splitlines()  # type: ignore[index]
    project.run(train)
    assert "Active features per sample" in project.run(analysis)
    result = newest(project.folder / "artifacts", "sparsity")
    table = pd.read_parquet(result / "sparsity.parquet")
    assert table.feature_set.tolist() == ["raw", "raw", "threshold_sae", "threshold_sae"]
    assert 0 < table.active_features.iloc[-1] < 64
    assert (result / "sparsity.png").exists()
    project.run(report)
    page = newest(project.folder / "artifacts", "report")
    assert "Mean number of active features per image and per text." in (page / "index.html").read_text()
    assert (page / "tables" / "sparsity.md").exists()
    listed = project.run("python -m mmmono.commands.make --table").splitlines()
    assert any(line.startswith("| `experiments/sparsity.py` | count how many features") for line in listed)
    status, _, error = project.status("experiments/sparsity.py", "sparsity.threshold=-1", "dataset=synthetic")
    assert (status, error.strip()) == (1, "error: sparsity.threshold=-1 must be at least 0")


def test_a_model_and_a_dataset_work_from_extraction_to_the_report(project: Project) -> None:
    for line in COMMANDS.search(sections()["model"])[1].splitlines():  # type: ignore[index]
        out = project.run(line)
    assert "Report: colors on imagefolder (val)" in out
    page = newest(project.folder / "artifacts", "report")
    html = (page / "index.html").read_text()
    assert "Figure 4" in html
    assert "Figure 1" in html


def test_a_model_a_dataset_and_an_autoencoder_of_another_package(project: Project) -> None:
    """The same files under names of one's own, as they are beside an installed mmmono."""
    moved = {
        "mmmono/data/image_folder.py": "my_source.py", "mmmono/pipeline/image_folder.py": "my_folder.py",
        "conf/dataset/image_folder.yaml": "my_conf/dataset/my_folder.yaml", "mmmono/vlm/color_encoder.py": "my_encoder.py",
        "mmmono/pipeline/colors.py": "my_colors.py", "conf/model/colors.yaml": "my_conf/model/my_colors.yaml",
        "mmmono/dictionaries/threshold_sae.py": "my_threshold_sae.py",
        "conf/features/threshold_sae.yaml": "my_conf/features/my_threshold_sae.yaml",
    }  # fmt: skip
    names = {
        path.removesuffix(".py").replace("/", "."): own.removesuffix(".py")
        for path, own in moved.items() if path.endswith(".py")
    }  # fmt: skip
    names |= {"threshold_sae": "my_threshold_sae", "mmmono.pipeline.feature_sets.SAE": "my_features.ThresholdFeatures"}
    pattern = re.compile("|".join(rf"(?<![\w.]){re.escape(name)}\b" for name in names))
    for path, content in FILE.findall(PAGE.read_text()):
        if path in moved:
            file = project.folder / moved[path]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(pattern.sub(lambda found: names[found[0]], content))
    features = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)[-1]
    (project.folder / "my_features.py").write_text(features)
    command = re.findall(r"^PYTHONPATH=\. mmmono mds (.*)$", PAGE.read_text(), re.MULTILINE)[0]
    project.run(f"python experiments/mds.py {command}")
    own = "--config-dir my_conf dataset=synthetic dataset.pairs=2000 features=my_threshold_sae trainer.max_steps=200"
    assert "my_threshold_sae" in project.run(f"python experiments/mds.py {own}")
    assert "my_threshold_sae" in project.run(f"python experiments/report.py {own}")
