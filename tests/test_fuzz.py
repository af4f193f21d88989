"""`make fuzz` tells what held, what failed and with which seed, and that seed makes it fail again."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.conftest import REPOSITORY

PROPERTIES = """
import pytest
from hypothesis import given, settings, strategies as st

@pytest.mark.fuzz
@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_holds(number):
    assert number >= 0

@pytest.mark.fuzz
@pytest.mark.parametrize("limit", [700, 2000])
@settings(max_examples=200)
@given(number=st.integers(0, 1000))
def test_is_small(number, limit):
    assert number < limit

@pytest.mark.fuzz
@given(st.none())
def test_cannot_run_here(_):
    pytest.skip("no such library")

def test_of_no_property():
    raise AssertionError("is no target")
"""


def fuzz(folder: Path, *options: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "tests.fuzz", str(folder), *options]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    return ran.returncode, ran.stdout + ran.stderr


@pytest.mark.slow
def test_a_table_of_targets_with_the_seed_of_each_failure(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = fuzz: a property\n")
    (tmp_path / "test_some.py").write_text(PROPERTIES)
    status, out = fuzz(tmp_path, "--rounds", "3", "--seed", "5")
    assert status == 1
    rows = {found[0]: found[1:] for found in re.findall(r"::(\S+) +│ (\d+) +│ [\d.]+ +│ (.*?) +│", out)}
    assert rows["test_holds"] == ("60", "0")
    assert rows["test_is_small[2000]"] == ("600", "0")
    assert rows["test_is_small[700]"][1] == "seed 5"
    assert "no such library" in rows["test_cannot_run_here"][1]
    assert "test_of_no_property" not in out
    assert "assert 700 < 700" in out
    repeat = re.search(r"python -m tests.fuzz (--seed 5 --rounds 1) '(.*test_is_small\[700\])'", out)
    assert repeat is not None
    again, _ = fuzz(tmp_path, *repeat[1].split(), "-k", "test_is_small and 700")
    assert again == 1
    holds, _ = fuzz(tmp_path, "--seconds", "0", "-k", "test_holds")
    assert holds == 0
    nothing, said = fuzz(tmp_path, "-k", "test_of_no_property")
    assert nothing == 2
    assert "no property test was collected" in said
