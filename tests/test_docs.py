"""The site of docs/, what is generated of it, and commands that pages name."""

import os
import pkgutil
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path

import pytest

import mmmono
from mmmono.commands.listing import entrypoint_table, results_page
from mmmono.commands.steps import targets as analysis_targets
from mmmono.pipeline.running import CONF
from tests.pipeline.conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("**/*.md"))]
NOWHERE = "http://127.0.0.1:9"  # a port at which nothing answers
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


class Page(HTMLParser):
    """Ids of a page, and what a browser loads to show it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if identifier := given.get("id"):
            self.ids.add(identifier)
        if address := given.get(LOADING.get(tag, "")):
            self.loaded.add(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it; whatever asks a network fails."""
    pytest.importorskip("mkdocs", reason="the docs extra brings MkDocs")
    folder = tmp_path_factory.mktemp("docs")
    proxies = {f"{scheme}_proxy": NOWHERE for scheme in ("http", "https", "HTTP", "HTTPS")}
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=REPOSITORY, env={**os.environ, **proxies, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_the_site_has_a_page_for_each_page_and_asks_no_other_host(site: Path) -> None:
    for source in (REPOSITORY / "docs").glob("**/*.md"):
        page = Page((site / source.relative_to(REPOSITORY / "docs")).with_suffix(".html"))
        assert page.loaded
        assert not {address for address in page.loaded if "//" in address}, source.name
    assert not re.search(r"@import|url\(\W?(https?:)?//", (site / "site.css").read_text())


@pytest.mark.slow
def test_the_reference_has_every_exported_name(site: Path) -> None:
    packages = [import_module(f"mmmono.{found.name}") for found in pkgutil.iter_modules(mmmono.__path__) if found.ispkg]
    exporting = {package.__name__: package.__all__ for package in packages if hasattr(package, "__all__")}
    assert {"mmmono.features", "mmmono.modality", "mmmono.dictionaries"} <= set(exporting)
    for package, names in exporting.items():
        page = Page(site / "api" / f"{package.removeprefix('mmmono.')}.html")
        shown = {identifier.rpartition(".")[2] for identifier in page.ids if identifier.startswith(package)}
        assert set(names) <= shown, package


@pytest.mark.slow
def test_the_reference_has_the_sections_of_docstrings(site: Path) -> None:
    page = (site / "api" / "core.html").read_text()
    assert "addressed by the configuration that made it" in page
    assert "the disk is full or not writable" in page  # from a Raises section
    assert "mmmono.core.errors.MissingArtifactError" in Page(site / "api" / "core.html").ids


def test_the_page_of_results_is_what_the_analyses_declare() -> None:
    """Written by `python -m mmmono.commands.make --results > docs/results.md`."""
    page = (REPOSITORY / "docs" / "results.md").read_text()
    assert page == results_page()
    assert "| `mds` | R(d) of Eq. 1, between 0 (text) and 1 (image) |" in page


def test_pages_name_entrypoints_options_and_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9.-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    targets |= set(analysis_targets()) | {target.partition(".")[0] for target in analysis_targets()}
    groups = {
        folder.name: {file.stem for file in folder.glob("*.yaml")} for folder in CONF.iterdir() if folder.is_dir()
    }
    for page in PAGES:
        if page.name == "extending.md":  # names what it adds itself; see test_extending.py
            continue
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


def test_the_readme_has_the_table_of_entrypoints() -> None:
    """Printed by `python -m mmmono.commands.make --table`."""
    assert entrypoint_table() in (REPOSITORY / "README.md").read_text()
    assert entrypoint_table().count("\n") == 1 + len(list((REPOSITORY / "experiments").glob("*.py")))
