"""What several files say about the project is the same in all of them."""

from __future__ import annotations

import tomllib

import yaml

import mmmono
from tests.pipeline.conftest import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def test_the_version_is_that_of_pyproject_everywhere() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert mmmono.__version__ == PROJECT["version"], "another version is installed: run `make setup`"
