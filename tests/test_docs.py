"""Documentation that is built from docstrings, and commands that it names."""

import re
from pathlib import Path

import pdoc

from mmmono.pipeline.entrypoint import CONF
from tests.pipeline.conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def test_the_api_reference_builds(tmp_path: Path) -> None:
    pdoc.render.configure(docformat="google")
    pdoc.pdoc("mmmono.core.artifacts", "mmmono.core.errors", output_directory=tmp_path)
    page = (tmp_path / "mmmono" / "core" / "artifacts.html").read_text()
    assert "addressed by the configuration that made it" in page
    assert "the disk is full or not writable" in page  # from a Raises section
    assert "MissingArtifactError" in (tmp_path / "mmmono" / "core" / "errors.html").read_text()


def test_pages_name_entrypoints_options_and_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9.-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    groups = {
        folder.name: {file.stem for file in folder.glob("*.yaml")} for folder in CONF.iterdir() if folder.is_dir()
    }
    for page in PAGES:
        text = page.read_text()
        for name in re.findall(r"experiments/(\w+)\.py", text):
            assert (REPOSITORY / "experiments" / f"{name}.py").exists(), f"{page.name}: {name}"
        for name in re.findall(r"`make ([a-z0-9.-]+)", text):
            assert name in targets, f"{page.name}: make {name}"
        for group, options in re.findall(r"(?<![\w./])(\w+)=\[?([\w,]+)\]?", text):
            for option in options.split(",") if group in groups else ():
                assert option in groups[group], f"{page.name}: {group}={option}"
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
