"""Models of transformers and of open_clip's hub layout, on data where it lies, from the command line to the report."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save
from transformers import AutoModel, AutoProcessor

from mmmono.features import FeatureStore
from tests.pipeline.conftest import Command, newest, saved_rows
from tests.vlm.hub_server import hub_server
from tests.vlm.tiny_transformers import WORDS, write_tiny

PAIRS = 60


@pytest.fixture
def imagefolder(tmp_path: Path) -> Path:
    """Random images with random captions, listed in a metadata file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    draw = np.random.default_rng(0)
    with (folder / "metadata.jsonl").open("w") as file:
        for number in range(PAIRS):
            Image.fromarray(draw.integers(0, 256, (40, 56, 3), np.uint8)).save(folder / f"{number}.png")
            caption = " ".join(draw.choice(WORDS, 6))
            file.write(
                json.dumps({"file_name": f"{number}.png", "text": caption, "kind": ["even", "odd"][number % 2]}) + "\n"
            )
    return folder


def features_of(artifacts: Path) -> FeatureStore:
    (store,) = (path for path in (artifacts / "features").iterdir() if path.is_dir())
    return FeatureStore(store)


@pytest.mark.slow
def test_a_siglip_of_transformers_from_extract_to_report(command: Command, imagefolder: Path, tmp_path: Path) -> None:
    model = write_tiny(tmp_path / "tiny-siglip", "siglip")
    mine = (
        f"artifacts={tmp_path / 'artifacts'}", "model=transformers", f"model.id={model}", "dataset=folder",
        f"dataset.root={imagefolder}", "dataset.split=all", "dataset.label_keys=[kind]", "extraction.dtype=float32",
    )  # fmt: skip
    plan = command("plan", *mine)
    assert plan.status == 0, plan.err
    assert f"{PAIRS} pairs × 32" in plan.out
    for name in ("extract", "mds", "report"):
        run = command(name, *mine, *(() if name == "extract" else ("features=raw", "mds.min_pairs=1")))
        assert run.status == 0, run.err
    store = features_of(tmp_path / "artifacts")
    assert store.manifest is not None
    assert (store.manifest.model, store.manifest.dataset, len(store)) == ("tiny-siglip", "folder", PAIRS)
    siglip, processor = AutoModel.from_pretrained(model).eval(), AutoProcessor.from_pretrained(model)
    row = store.metadata().iloc[7]
    with torch.inference_mode():
        image = siglip.get_image_features(
            **processor(images=Image.open(imagefolder / f"{row['key']}.png"), return_tensors="pt")
        )
        text = siglip.get_text_features(
            **processor(text=[row["caption"]], padding="max_length", max_length=20, return_tensors="pt")
        )
    for modality, wanted in (("image", image), ("text", text)):
        stored = store.read(modality, 7, 8)  # type: ignore[arg-type]
        torch.testing.assert_close(stored, getattr(wanted, "pooler_output", wanted), atol=1e-5, rtol=1e-5)
    assert saved_rows(newest(tmp_path / "artifacts", "mds"), "summary")[0]["features"] == 32
    assert "tiny-siglip on folder" in (newest(tmp_path / "artifacts", "report") / "index.html").read_text()


@pytest.mark.slow
def test_a_model_in_open_clips_layout_on_the_hub_from_extract_to_report(
    command: Command, imagefolder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {
        "embed_dim": 24,
        "vision_cfg": {"layers": 2, "width": 64, "patch_size": 16, "image_size": 32},
        "text_cfg": {"width": 64, "heads": 2, "layers": 2},
    }
    torch.manual_seed(0)
    weights = save({name: weight.contiguous() for name, weight in open_clip.CLIP(**config).state_dict().items()})
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with hub_server() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        address = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
        hub.files = {
            "org/bird-clip/open_clip_config.json": json.dumps({"model_cfg": config, "preprocess_cfg": {}}).encode(),
            "org/bird-clip/open_clip_model.safetensors": weights,
        }
        names = [{"rfilename": name.rpartition("/")[2], "size": len(content)} for name, content in hub.files.items()]
        hub.api = {"/api/models/org/bird-clip": json.dumps({"id": "org/bird-clip", "siblings": names}).encode()}
        mine = (
            f"artifacts={tmp_path / 'artifacts'}", "model=open_clip", "model.architecture=hf-hub:org/bird-clip",
            "dataset=table", f"dataset.path={imagefolder / 'metadata.jsonl'}", "dataset.split=all", "features=raw",
        )  # fmt: skip
        plan = command("plan", *mine, "hydra.job.name=plan")
        assert plan.status == 0, plan.err
        assert "weights of bird-clip" in plan.out
        assert not any("GET" in request and "safetensors" in request for request, _ in hub.log), "a plan downloads none"
        for name in ("mds", "report"):
            run = command(name, *mine, "mds.min_pairs=1")
            assert run.status == 0, run.err
        gone = command("mds", *mine, "model.architecture=hf-hub:org/no-clip")
        assert (gone.status, len(gone.err.strip().splitlines())) == (1, 1)
        assert "there is no such repository, or it is private or withdrawn" in gone.err
        huggingface_hub.close_session()
    assert (features_of(tmp_path / "artifacts").dim, len(features_of(tmp_path / "artifacts"))) == (24, PAIRS)
    assert "bird-clip on table" in (newest(tmp_path / "artifacts", "report") / "index.html").read_text()
