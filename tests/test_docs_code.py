"""Every Python block of README and docs runs as it is printed, below an artifacts root such as `make demo` leaves."""

import re
from pathlib import Path

import pytest
import torch

from mmmono.core.artifacts import Artifacts
from mmmono.dictionaries import TopKSAE
from mmmono.features import FeatureStore, RawFeatures, activations
from mmmono.features.selection import FeatureView
from mmmono.modality import dominance_scores
from mmmono.pipeline.settings import known_settings
from tests.pipeline.conftest import REPOSITORY, run_entrypoint

SYNTHETIC = ["dataset=synthetic", "dataset.pairs=600", "dataset.dim=16", "features.k=6"]
SHORT = ["trainer.max_steps=30", "trainer.min_steps=1", "trainer.val_check_interval=15"]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = {
    page.relative_to(REPOSITORY).as_posix(): BLOCK.findall(page.read_text())
    for page in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("**/*.md")))
    if page.name != "extending.md"  # its blocks are files; see test_extending.py
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `artifacts`, which has the features of synthetic pairs and an SAE."""
    folder = tmp_path_factory.mktemp("demo")
    assert run_entrypoint("train", *SYNTHETIC, *SHORT, "features=sae", f"artifacts={folder / 'artifacts'}") == 0
    return folder


def run(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What the page's blocks leave, one after the other in one notebook."""
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    for number, block in enumerate(PAGES[page], start=1):
        exec(compile(block, f"{page}, Python block {number}", "exec"), names)
    return names


@pytest.mark.parametrize("page", [page for page, found in PAGES.items() if found])
def test_blocks_run_as_printed(page: str, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(page, made, monkeypatch)


def test_the_notebook_of_the_readme_sees_what_commands_see(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pairs, of unit length, through the dictionary that was trained on such."""
    names = run("README.md", made, monkeypatch)
    store = FeatureStore(next(Artifacts(made / "artifacts").find("features")).path)
    blocks = activations(FeatureView(store), RawFeatures(store.dim), normalize=True)
    scores = dominance_scores((block.image_rows, block.text_rows) for block in blocks)
    assert scores.num_pairs == len(names["image"]) == 600  # type: ignore[arg-type]
    expected = scores.scores > scores.scores.mean() + scores.scores.std(correction=0)
    assert torch.equal(names["partition"].image_dominant, expected.nonzero().squeeze(1))  # type: ignore[attr-defined]
    assert isinstance(names["sae"], TopKSAE)
    torch.testing.assert_close(names["image"].norm(dim=1), torch.ones(600))  # type: ignore[attr-defined]


def test_settings_that_pages_name_exist() -> None:
    """Each `section.setting` of a section that there is."""
    known = known_settings()
    sections = {key.partition(".")[0] for key in known if "." in key}
    for page in PAGES:
        for section, name in re.findall(r"`(\w+)((?:\.\w+)+)(?:=[^`]*)?`", (REPOSITORY / page).read_text()):
            if section in sections and not name.endswith((".safetensors", ".parquet", ".py", ".png", ".yaml")):
                assert section + name in known or section in ("trainer", "hydra", "logger"), f"{page}: {section}{name}"


def test_no_page_hides_python_under_another_name() -> None:
    for page in PAGES:
        languages = set(re.findall(r"^```([\w+-]+)", (REPOSITORY / page).read_text(), re.MULTILINE))
        assert not languages & {"py", "python3", "pycon", "ipython", "Python"}, page
