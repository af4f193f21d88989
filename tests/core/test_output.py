"""What a user sees of an interrupt however early it comes, and of standard output that can be written no more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmmono.core.output import INTERRUPTED

REPOSITORY = Path(__file__).resolve().parents[2]
FULL = Path("/dev/full")
LINE = "error: standard output cannot be written (No space left on device): send it elsewhere"
LOGS = (
    "import logging, sys; from mmmono.core.output import ending_in_a_line\n"
    "logging.raiseExceptions = False; logging.basicConfig(stream=sys.stdout)\n"
    "with ending_in_a_line():\n    logging.basicConfig(stream=sys.stdout, force=True); logging.error('x')"
)


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "words",
    [
        ["experiments/mds.py", "--help"], ["experiments/mds.py", "--cfg", "job"], ["experiments/mds.py", "--info", "config"],
        ["-m", "mmmono"], ["-m", "mmmono", "--version"], ["-m", "mmmono", "train", "--help"],
        ["-m", "mmmono.commands.make", "--list"], ["-c", LOGS],
    ],
)  # fmt: skip
def test_a_full_device_is_one_line_that_names_standard_output(words: list[str], unbuffered: str) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with FULL.open("w") as full:
        run = subprocess.run(
            [sys.executable, *words], stdout=full, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY, env=environment
        )
    assert run.returncode == 1
    assert run.stderr.startswith(LINE)
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["-m", "mmmono"], ["-m", "mmmono.commands.make", "--list"]])
def test_a_reader_who_left_is_no_traceback(words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run([sys.executable, *words], stdout=write, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)
    os.close(write)
    assert (run.returncode, run.stderr) == (1, "")


@pytest.mark.parametrize("package", ["omegaconf", "hydra", "torch"])
@pytest.mark.parametrize("script", ["experiments/validate.py", "mmmono/__main__.py"])
def test_an_interrupt_while_a_package_is_imported_is_one_line(package: str, script: str, tmp_path: Path) -> None:
    code = (
        "import runpy, sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {package!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        f"words = ['validate'] if 'main' in {script!r} else []\n"
        f"sys.argv = [{script!r}, *words, {f'artifacts={tmp_path}'!r}]; runpy.run_path({script!r}, run_name='__main__')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert (run.returncode, run.stderr) == (130, f"{INTERRUPTED}\n")
