from __future__ import annotations

import json
import pickle
import time
from pathlib import Path

import open_clip
import pytest
import torch
from huggingface_hub import constants

from mmmono.core.errors import ModelError
from mmmono.vlm import hub, load_open_clip
from mmmono.vlm.weight_settings import WeightSettings


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An architecture small enough to build in no time, known to open_clip by name."""
    folder = tmp_path_factory.mktemp("configs")
    config = {
        "embed_dim": 24,
        "vision_cfg": {"layers": 1, "width": 64, "patch_size": 16, "image_size": 32},
        "text_cfg": {"width": 64, "heads": 2, "layers": 1},
    }
    towers = {
        "": {},
        "-resnet": {"layers": [1, 1, 1, 1], "width": 16, "head_width": 16, "patch_size": None},
        "-timm": {"timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": "linear"},
        "-fixed": {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "", "timm_proj": "linear", "image_size": 96},
        "-wider": {"timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": "none"},
    }
    for ending, tower in towers.items():
        content = {**config, "vision_cfg": {**config["vision_cfg"], **tower}}  # type: ignore[dict-item]
        (folder / f"mmmono-tiny{ending}.json").write_text(json.dumps(content))
    open_clip.add_model_config(folder)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    model = open_clip.create_model("mmmono-tiny")
    path = tmp_path / "tiny.pt"
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, path)
    return path


def test_a_local_checkpoint_is_what_open_clip_makes_of_it(checkpoint: Path) -> None:
    encoder = load_open_clip("mmmono-tiny", str(checkpoint), name="mine")
    reference, _, _ = open_clip.create_model_and_transforms("mmmono-tiny", str(checkpoint))
    tokens = open_clip.tokenize(["a cat"])
    pixels = torch.randn(2, 3, 32, 32)
    assert (encoder.name, encoder.dim) == ("mine", 24)
    assert torch.allclose(encoder.encode_text(tokens), reference.eval().encode_text(tokens), atol=1e-6)
    assert torch.allclose(encoder.encode_image(pixels), reference.encode_image(pixels), atol=1e-5)


@pytest.mark.parametrize("tower", ["mmmono-tiny", "mmmono-tiny-resnet", "mmmono-tiny-timm"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "pure_bf16"])
def test_pixels_get_the_type_that_open_clip_names_for_a_precision(tower: str, precision: str) -> None:
    encoder = load_open_clip(tower, None, precision=precision)
    got: list[torch.dtype] = []
    encoder.model.visual.register_forward_pre_hook(lambda _, inputs: got.append(inputs[0].dtype))
    assert encoder.encode_image(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, 24)
    assert got == [open_clip.get_input_dtype(precision) or torch.float32]


def test_fingerprints_tell_weights_and_activations_apart(checkpoint: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.pt"
    moved.write_bytes(checkpoint.read_bytes())
    fingerprint = load_open_clip("mmmono-tiny", str(checkpoint)).fingerprint
    assert load_open_clip("mmmono-tiny", str(moved)).fingerprint == fingerprint
    assert (
        load_open_clip("mmmono-tiny", str(checkpoint), settings=WeightSettings(quick_gelu=True)).fingerprint
        != fingerprint
    )
    random = [load_open_clip("mmmono-tiny", None).fingerprint for _ in range(2)]
    assert len({*random, fingerprint}) == 3


@pytest.mark.parametrize(
    ("architecture", "pretrained", "says"),
    [
        ("ViT-B-23", "openai", "ViT-B-32"),
        ("vit-b-32", None, "ViT-B-32"),
        ("RN50", "opnai", r"closest: openai.*yfcc15m"),
        ("RN50", "/nowhere/rn50.pt", "is no file"),
        ("mmmono-tiny", "openai", "it has none"),
    ],
)
def test_typos_are_answered_with_what_there_is(architecture: str, pretrained: str | None, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        load_open_clip(architecture, pretrained)


def test_checkpoints_that_cannot_be_loaded_say_why(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load RN50 from"):
        load_open_clip("RN50", str(checkpoint))
    other = tmp_path / "other.pt"
    other.write_text("this is no checkpoint")
    with pytest.raises(ModelError, match=r"other\.pt"):
        load_open_clip("mmmono-tiny", str(other))
    unsafe = tmp_path / "unsafe.pt"
    torch.save({"state_dict": {}, "config": Path("/")}, unsafe, pickle_module=pickle)
    with pytest.raises(ModelError, match="convert it once with"):
        load_open_clip("mmmono-tiny", str(unsafe))
    torch.jit.trace(torch.nn.Linear(1, 1), torch.ones(1)).save(tmp_path / "archive.pt")
    with pytest.raises(ModelError, match=r"torch\.jit\.load"):
        load_open_clip("mmmono-tiny", str(tmp_path / "archive.pt"))


def test_towers_that_do_not_take_what_is_set_are_told_before_anything_is_encoded() -> None:
    with pytest.raises(
        ModelError, match=r"images of 96 px .*\(Input height \(96\) doesn't match model.*compare image_size"
    ):
        load_open_clip("mmmono-tiny-fixed", None)
    assert load_open_clip("mmmono-tiny-fixed", None, settings=WeightSettings(image_size=224)).dim == 24


def test_towers_of_different_width_are_told_when_the_model_is_loaded() -> None:
    """open_clip takes a timm tower without a projection, whose own width (here 512) then meets the text tower's 24."""
    with pytest.raises(
        ModelError, match=r"image tower returns 512 dimensions, its text tower 24, and embed_dim .* is 24"
    ):
        load_open_clip("mmmono-tiny-wider", None)


def test_an_unreachable_hub_is_reported_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "_hub_answers", lambda: False)
    before = constants.HF_HUB_OFFLINE
    start = time.monotonic()
    with pytest.raises(ModelError, match=r"model\.pretrained=/path/to/checkpoint model\.force_quick_gelu=true"):
        load_open_clip("RN50-quickgelu", "openai", cache_dir=str(tmp_path))
    assert time.monotonic() - start < 5
    assert before == constants.HF_HUB_OFFLINE


def test_a_tag_brings_its_own_activation(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    tags = {"quick": {"file": str(checkpoint), "quick_gelu": True}, "plain": {"file": str(checkpoint)}}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda _, tag: tags.get(tag, {}))
    monkeypatch.setattr(open_clip.factory, "get_pretrained_cfg", lambda _, tag: tags.get(tag, {}))
    monkeypatch.setattr(hub, "_hub_answers", lambda: False)
    blocks = {tag: load_open_clip("mmmono-tiny", tag).model.transformer.resblocks[0] for tag in tags}
    assert isinstance(blocks["quick"].mlp.gelu, open_clip.transformer.QuickGELU)
    assert isinstance(blocks["plain"].mlp.gelu, torch.nn.GELU)
    with pytest.raises(ModelError, match="was trained with GELU"):
        load_open_clip("mmmono-tiny", "plain", settings=WeightSettings(quick_gelu=True))
