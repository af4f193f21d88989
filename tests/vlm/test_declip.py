from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from mmmono.core.errors import ModelError
from mmmono.pipeline.models import DeCLIP
from mmmono.vlm import convert_declip_state_dict, declip, load_declip

RESNET = {"layers": [1, 1, 1, 1], "width": 16, "image_size": 32, "head_width": 16}
VIT = {"layers": 2, "width": 64, "patch_size": 16, "image_size": 32}
TEXT = {"width": 64, "heads": 2, "layers": 2, "context_length": 77, "vocab_size": 49408, "proj_bias": True}
HEADS = ("projector", "predictor", "projector_d", "predictor_text", "projector_nn_text", "predictor_nn_text")
TEXT_KEYS = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")


def _as_declip(model: torch.nn.Module, prefix: str, resnet: bool) -> dict[str, Tensor]:
    """Name a model's weights as DeCLIP does, with its mask token and the heads of its losses."""
    state = {}
    for key, value in model.state_dict().items():
        if key == "token_embedding.weight":
            value = torch.cat([value[:49406], torch.full((1, value.shape[1]), 99.0), value[49406:]])
        if key == "logit_scale":
            value = value[None]
        state["encode_text." + key if key.startswith(TEXT_KEYS) else key] = value
    for head in HEADS:
        state |= {f"{head}.linear1.weight": torch.ones(3, 3), f"{head}.bn1.num_batches_tracked": torch.tensor(1)}
    state |= {"text_label_predictor.bias": torch.ones(3), "nn_replacer_img.bank": torch.ones(2, 3)}
    if resnet:
        state |= {"visual.fc.weight": torch.ones(2, 3), "visual.fc.bias": torch.ones(2)}
    return {prefix + key: value for key, value in state.items()}


@pytest.fixture(params=["declip_rn50", "declip_vit_b32"])
def small(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, torch.nn.Module]:
    """A small model of each kind, whose joint width differs from the configuration's."""
    vision = RESNET if request.param == "declip_rn50" else VIT
    config = {"embed_dim": 7, "quick_gelu": True, "vision_cfg": vision, "text_cfg": TEXT}
    (tmp_path / f"{request.param}.json").write_text(json.dumps(config))
    monkeypatch.setattr(declip, "CONFIGS", tmp_path)
    torch.manual_seed(0)
    model = open_clip.CLIP(**{**config, "embed_dim": 48}).eval()
    torch.nn.init.normal_(model.text_projection.bias)
    return request.param, model


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["module.", "", "module._orig_mod."])
def test_a_declip_checkpoint_embeds_as_the_model_it_came_from(
    small: tuple[str, torch.nn.Module], prefix: str, tmp_path: Path
) -> None:
    name, model = small
    path = tmp_path / "declip.pth.tar"
    torch.save({"model": _as_declip(model, prefix, name == "declip_rn50"), "last_iter": 3}, path)
    encoder = load_declip(name, path)
    assert (encoder.name, encoder.dim) == (name, 48)
    assert DeCLIP(name=name, checkpoint=str(path)).dim == 48
    pixels = torch.randn(2, 3, 32, 32)
    tokens = open_clip.tokenize(["a cat", "a longer caption of another animal"])
    with torch.no_grad():
        assert_close(encoder.encode_image(pixels), model.encode_image(pixels), atol=1e-5, rtol=1e-4)
        assert_close(encoder.encode_text(tokens), model.encode_text(tokens))
    white = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    imagenet = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    normalized = imagenet.view(1, 3, 1, 1).expand(1, 3, 32, 32)
    assert_close(encoder.encode_image(white), encoder.encode_image(normalized), atol=1e-5, rtol=1e-4)


@given(st.sampled_from(declip.EXTRA_HEADS), st.sampled_from(["", "module."]), st.text("abc.1", min_size=1, max_size=9))
def test_every_head_of_the_losses_is_dropped(head: str, prefix: str, rest: str) -> None:
    state = {f"{prefix}{head}.{rest}": torch.ones(1), f"{prefix}visual.proj": torch.ones(2)}
    assert set(convert_declip_state_dict(state)) == {"visual.proj"}


def test_what_does_not_fit_is_named(small: tuple[str, torch.nn.Module], tmp_path: Path) -> None:
    name, model = small
    path = tmp_path / "declip.pth.tar"
    state = _as_declip(model, "module.", False)
    state["module.surprise.weight"] = torch.ones(1)
    del state["module.encode_text.ln_final.bias"]
    state["module.encode_text.positional_embedding"] = torch.ones(5, 64)
    torch.save({"model": state}, path)
    expected = r"missing: ln_final\.bias; unknown: surprise\.weight; of another shape: positional_embedding \(5, 64\)"
    with pytest.raises(ModelError, match=expected):
        load_declip(name, path)
    torch.save({"model": {f"extra{i:02}": torch.ones(1) for i in range(20)}}, path)
    with pytest.raises(ModelError, match=r"unknown: extra00.*extra11 and 8 more$"):
        load_declip(name, path)


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="declip_rn101 is none of declip_rn50"):
        load_declip("declip_rn101", tmp_path)
    with pytest.raises(ModelError, match="is no file"):
        load_declip("declip_rn50", tmp_path / "absent")
    path = tmp_path / "odd.pth"
    torch.save({"model": {"weight": torch.ones(1)}, "path": Path("/")}, path)
    with pytest.raises(ModelError, match="convert it once with"):
        load_declip("declip_rn50", path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ModelError, match="is a git-lfs pointer"):
        load_declip("declip_rn50", path)
    torch.save([1, 2], path)
    with pytest.raises(ModelError, match="holds no weights under 'model'"):
        load_declip("declip_rn50", path)


@pytest.mark.parametrize(("name", "dim"), [("declip_rn50", 1024), ("declip_vit_b32", 512)])
def test_the_architectures_are_clips_own_with_a_text_bias(name: str, dim: int) -> None:
    config = json.loads((declip.CONFIGS / f"{name}.json").read_text())
    peer = open_clip.get_model_config({"declip_rn50": "RN50-quickgelu", "declip_vit_b32": "ViT-B-32-quickgelu"}[name])
    peer["vision_cfg"] = {key: value for key, value in peer["vision_cfg"].items() if value is not None}
    assert config["text_cfg"].pop("proj_bias")
    assert config == {**peer, "embed_dim": dim}
