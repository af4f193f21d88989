"""The wheel: what `pip install mmmono` brings, in an environment that has nothing of this clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from tests.pipeline.conftest import REPOSITORY

PARTS = ("mmmono", "conf", "experiments", "pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in")
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def setuptools_is_new_enough() -> bool:
    try:
        return int(version("setuptools").split(".")[0]) >= 77
    except PackageNotFoundError:
        return False


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not setuptools_is_new_enough(), reason="the dev extra brings setuptools >= 77, which builds it"),
]


@dataclass
class Installed:
    """An environment with the wheel and, from this one, what it depends on."""

    bin: Path
    wheel: Path
    sdist: Path

    def run(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
        return subprocess.run(
            [self.bin / "mmmono", *arguments], cwd=folder, env=environment, capture_output=True, text=True
        )


def build(kind: str, source: Path, folder: Path) -> Path:
    """`wheel` or `sdist`, by the backend that is installed: no network is asked."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", BUILD, f"build_{kind}", str(folder)]
    run = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    return folder / run.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # setuptools leaves files where it builds
    source.mkdir()
    for part in PARTS:
        if (REPOSITORY / part).is_dir():
            shutil.copytree(REPOSITORY / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(REPOSITORY / part, source)
    sdist = build("sdist", source, folder / "dist")
    shutil.unpack_archive(sdist, folder / "unpacked")  # a wheel comes from the sdist, as on an index
    (unpacked,) = (folder / "unpacked").iterdir()
    wheel = build("wheel", unpacked, folder / "dist")
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    install = ["-I", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel]  # -I: not what PYTHONPATH has
    subprocess.run([python, *install], check=True)
    (purelib,) = environment.glob("lib/python*/site-packages")
    paths = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (purelib / "dependencies.pth").write_text("\n".join(paths) + "\n")
    return Installed(environment / "bin", wheel, sdist)


def test_it_holds_every_file_of_the_package_and_of_both_folders(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = set()
    for folder, name in (("mmmono", "mmmono"), ("conf", "mmmono/_conf"), ("experiments", "mmmono/_experiments")):
        for file in (REPOSITORY / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                expected.add(f"{name}/{file.relative_to(REPOSITORY / folder).as_posix()}")
    assert held == expected


def test_the_command_works_in_an_empty_folder(installed: Installed, tmp_path: Path) -> None:
    run = installed.run(tmp_path)
    assert run.returncode == 0, run.stderr
    assert "  mds " in run.stdout
    run = installed.run(tmp_path, "mds", "--help")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("mds: score every feature's modality dominance")
    run = installed.run(tmp_path, "mds", "features=nope")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("error: features=nope names no option")
    assert list(tmp_path.iterdir()) == []


def test_it_computes_without_the_clone(installed: Installed, tmp_path: Path) -> None:
    synthetic = ["dataset=synthetic", "dataset.pairs=200", "dataset.dim=8", "features=raw"]
    run = installed.run(tmp_path, "mds", *synthetic)
    assert run.returncode == 0, run.stderr
    assert list((tmp_path / "artifacts" / "results").glob("mds-*/mds.png"))
    run = installed.run(tmp_path, "plan", *synthetic)
    assert run.returncode == 0, run.stderr
    assert "found in artifacts" in run.stdout
