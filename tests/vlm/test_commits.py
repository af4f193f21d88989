"""A model on the hub is loaded at the commit that its recipe is of, whatever is pushed and wherever it is loaded."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load, save

from mmmono.core.artifacts import Artifacts
from mmmono.pipeline.models import OpenCLIP
from mmmono.pipeline.transformers_model import Transformers
from mmmono.vlm.repositories import Repository
from tests.vlm.hub_server import COMMIT, Hub
from tests.vlm.test_hub import NAME, served
from tests.vlm.tiny_transformers import write_tiny

__all__ = ["served"]


def moved(weights: bytes) -> bytes:
    """The same weights, with one added to each."""
    return save({name: weight + 1 for name, weight in load(weights).items()})


def travelled(option: Any, served: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The option as another machine gets it: without the driver's cache."""
    known = pickle.dumps(option)
    (folder / "hub").rename(folder / "of the driver")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "of a worker"))
    return pickle.loads(known)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_open_clips_weights_are_those_of_the_recipe(
    served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    config = {
        "embed_dim": 24,
        "vision_cfg": {"layers": 1, "width": 64, "patch_size": 16, "image_size": 32},
        "text_cfg": {"width": 64, "heads": 2, "layers": 1},
    }
    torch.manual_seed(0)
    model = open_clip.CLIP(**config)
    weights = save({name: weight.contiguous() for name, weight in model.state_dict().items()})
    file = "org/model/open_clip_config.json"
    served.files = {file: json.dumps({"model_cfg": config, "preprocess_cfg": {}}).encode(), NAME: weights}
    option: Any = OpenCLIP(name="x", architecture="hf-hub:org/model")
    option.recipe()
    served.push({NAME: moved(weights)})
    if elsewhere:
        option = travelled(option, served, tmp_path, monkeypatch)
    encoder = option.load(Artifacts(tmp_path / "artifacts"), "cpu")
    assert encoder.model.state_dict()["visual.proj"].equal(model.visual.proj)
    newer: Any = OpenCLIP(name="x", architecture="hf-hub:org/model").load(Artifacts(tmp_path / "artifacts"), "cpu")
    assert newer.model.state_dict()["visual.proj"].equal(model.visual.proj + 1)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_weights_of_transformers_are_those_of_the_recipe(
    served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    folder = write_tiny(tmp_path / "clip", "clip")
    served.files = {f"org/clip/{file.name}": file.read_bytes() for file in folder.iterdir()}
    weights = served.files["org/clip/model.safetensors"]
    option: Any = Transformers(name="x", id="org/clip")
    option.recipe()
    served.push({"org/clip/model.safetensors": moved(weights)})
    if elsewhere:
        option = travelled(option, served, tmp_path, monkeypatch)
    encoder = option.load(Artifacts(tmp_path / "artifacts"), "cpu")
    name = "text_projection.weight"
    assert encoder.model.state_dict()[name].equal(load(weights)[name])


def test_files_of_a_commit_are_asked_for_once(served: Hub) -> None:
    repository = Repository("org/model", COMMIT, Path())
    file = repository.download("absent.bin", "open_clip_model.safetensors")
    requests = len(served.log)
    assert repository.download("absent.bin", "open_clip_model.safetensors") == file
    assert repository.download("open_clip_model.safetensors", "another.bin") == file
    assert len(served.log) == requests
