"""What several files say about the project is the same in all of them."""

from __future__ import annotations

import ast
import builtins
import dis
import tomllib
import types
from collections.abc import Iterator

import pytest
import yaml

import mmmono
from tests.pipeline.conftest import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def test_the_version_is_that_of_pyproject_everywhere() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert mmmono.__version__ == PROJECT["version"], "another version is installed: run `make setup`"


def global_names(code: types.CodeType) -> Iterator[str]:
    """Names that a code object, or one inside it, looks up in its module."""
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield step.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from global_names(constant)


@pytest.mark.parametrize("folder", ["mmmono", "tests", "experiments", "benchmarks"])
def test_every_name_is_defined_somewhere_in_its_module(folder: str) -> None:
    """The linters cannot tell: shapes of tensors in annotations are names to them, so they ignore undefined ones."""
    for file in sorted((REPOSITORY / folder).rglob("*.py")):
        text = file.read_text()
        tree = ast.parse(text)
        known = {
            *dir(builtins),
            "__file__",
            "__path__",
            "__doc__",
            "__name__",
            "__annotations__",
            "__module__",
            "__qualname__",
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                known |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                known.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                known.add(node.id)
            elif isinstance(node, ast.ExceptHandler) and node.name:
                known.add(node.name)
        missing = sorted(set(global_names(compile(text, str(file), "exec"))) - known)
        assert not missing, (
            f"{file.relative_to(REPOSITORY)} uses {', '.join(missing)} and defines or imports no such name"
        )


def test_texts_are_utf8_whatever_the_locale_says() -> None:
    """`ruff` finds such calls only where it knows that something is a path."""
    for file in sorted((REPOSITORY / "mmmono").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                says = {keyword.arg for keyword in node.keywords}
                told = node.func.attr not in ("read_text", "write_text") or "encoding" in says
                assert told, f"{file.relative_to(REPOSITORY)}, line {node.lineno}: give encoding"
