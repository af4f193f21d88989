"""Packages whose heavy modules are imported when they are used."""

import importlib
import subprocess
import sys

import pytest

HEAVY = ("lightning", "torchmetrics", "torchvision", "open_clip", "timm", "transformers", "sklearn")


@pytest.mark.parametrize("package", ["mmmono.dictionaries", "mmmono.vlm"])
def test_every_exported_name_is_there_and_no_other(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name).__name__ == name
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_a_workspace_imports_no_library_that_only_training_or_embedding_takes() -> None:
    code = f"import sys, mmmono.pipeline.workspace; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
