"""Embeddings from a layer of open_clip's models, against the output of that block in the whole model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mmmono.core.artifacts import Artifacts
from mmmono.core.errors import ModelError
from mmmono.pipeline.models import OpenCLIP
from mmmono.vlm import OpenCLIPEncoder
from mmmono.vlm.depth import Depth, cut

TEXT = {"width": 64, "heads": 2, "layers": 3, "vocab_size": 49408}
CONFIGS = {
    "own": {
        "embed_dim": 24,
        "vision_cfg": {"layers": 3, "width": 64, "patch_size": 16, "image_size": 32, "head_width": 32},
        "text_cfg": TEXT,
    },
    "timm": {
        "embed_dim": 24,
        "vision_cfg": {
            "timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "timm_proj": "linear", "image_size": 224,
        },
        "text_cfg": {**TEXT, "proj_bias": True},
    },
    "resnet": {"embed_dim": 24, "vision_cfg": {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64}, "text_cfg": TEXT},
}  # fmt: skip


def folder_with(kind: str, root: Path) -> tuple[Path, Any]:
    """A folder in open_clip's layout, and the model in it."""
    torch.manual_seed(0)
    config: Any = CONFIGS[kind]
    model = (open_clip.CustomTextCLIP if kind == "timm" else open_clip.CLIP)(**config).eval()
    root.mkdir()
    (root / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    state = {name: weight.contiguous() for name, weight in model.state_dict().items()}
    save_file(state, root / "open_clip_model.safetensors")
    return root, model


def outputs_of(block: torch.nn.Module, run: Any) -> Tensor:
    """What a block gives in a run of the whole model."""
    kept: list[Tensor] = []
    hook = block.register_forward_hook(lambda _, __, output: kept.append(output))
    with torch.no_grad():
        run()
    hook.remove()
    return kept[0]


@pytest.mark.parametrize("projected", [True, False])
def test_a_layer_of_open_clips_own_towers(tmp_path: Path, projected: bool) -> None:
    folder, model = folder_with("own", tmp_path / "model")
    option = OpenCLIP(name="x", architecture=f"local-dir:{folder}", layer=[2, -3], projected=projected)
    encoder = option.load(Artifacts(tmp_path), "cpu")
    assert isinstance(encoder, OpenCLIPEncoder)
    pixels = torch.randn(3, 3, 32, 32)
    tokens = encoder.tokenize(["a cat", "a photo of two dogs", ""])
    whole = torch.nn.functional.pad(tokens, (0, 77 - tokens.shape[1]))
    image = model.visual.ln_post(
        outputs_of(model.visual.transformer.resblocks[1], lambda: model.encode_image(pixels))[:, 0]
    )
    text = model.ln_final(outputs_of(model.transformer.resblocks[0], lambda: model.encode_text(whole)))
    text = text[torch.arange(3), whole.argmax(1)]
    if projected:
        image, text = image @ model.visual.proj, text @ model.text_projection
    found = encoder.encode_image(pixels), encoder.encode_text(tokens)
    torch.testing.assert_close(found, (image, text), atol=1e-5, rtol=1e-5)
    assert encoder.dim == option.dim == (24 if projected else 64)
    assert option.open_clip_name is None, "no generator takes these embeddings for the whole model's"
    assert OpenCLIP(name="x", architecture=f"local-dir:{folder}").recipe() != option.recipe()


def test_a_layer_of_a_tower_of_timm(tmp_path: Path) -> None:
    folder, model = folder_with("timm", tmp_path / "model")
    option = OpenCLIP(name="x", architecture=f"local-dir:{folder}", layer=[-2, None])
    encoder = option.load(Artifacts(tmp_path), "cpu")
    assert isinstance(encoder, OpenCLIPEncoder)
    pixels = torch.randn(2, 3, 224, 224)
    trunk = model.visual.trunk
    block = outputs_of(trunk.blocks[10], lambda: model.encode_image(pixels))
    wanted = model.visual.head(trunk.norm(block)[:, 0])
    torch.testing.assert_close(encoder.encode_image(pixels), wanted, atol=1e-5, rtol=1e-5)
    tokens = encoder.tokenize(["a cat"])
    whole = torch.nn.functional.pad(tokens, (0, 77 - tokens.shape[1]))
    torch.testing.assert_close(encoder.encode_text(tokens), model.encode_text(whole), atol=1e-5, rtol=1e-5)
    with pytest.raises(ModelError, match="embeddings of images are 192 wide and those of texts 64"):
        OpenCLIP(name="x", architecture=f"local-dir:{folder}", projected=False).load(Artifacts(tmp_path), "cpu")


@pytest.mark.parametrize(
    ("trunk", "pool", "proj", "first"),
    [
        ("vit_tiny_patch16_224", "token", None, "trunk.head"),  # as in EVA-02, MobileCLIP and PE
        ("vit_tiny_patch16_224", "avg", "mlp", "head.mlp"),
        ("vit_tiny_patch16_224", "map", "none", "head"),  # as in SigLIP, which has no projection
        ("resnet18", "abs_attn", None, "head.pool.proj"),
        ("resnet18", "rot_attn", "linear", "head.pool.proj"),
    ],
)
def test_whatever_projects_in_a_tower_of_timm_is_left_out(trunk: str, pool: str, proj: str | None, first: str) -> None:
    width = 192 if "vit" in trunk else 512
    vision = {"timm_model_name": trunk, "timm_pool": pool, "timm_proj": proj, "image_size": 224}
    torch.manual_seed(0)
    model = open_clip.CLIP(width if proj == "none" else 24, vision, {**TEXT, "width": width}).eval()
    pixels, kept = torch.randn(2, 3, 224, 224), []
    model.visual.get_submodule(first).register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    with torch.no_grad():
        model.encode_image(pixels)
    wanted = kept[0] if kept[0].ndim == 2 else kept[0][:, 0]  # pools project all positions
    encoder = encoder_of(model, 224)
    cut(encoder, Depth(projected=False))
    assert encoder.dim == width
    torch.testing.assert_close(encoder.encode_image(pixels), wanted, atol=1e-5, rtol=1e-5)


def test_the_projection_of_a_resnet_is_left_out_of_its_pool() -> None:
    torch.manual_seed(0)
    vision = {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64}
    model = open_clip.CLIP(512, vision, {**TEXT, "width": 512}).eval()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        whole = model.encode_image(pixels)
    projection = model.visual.attnpool.c_proj
    encoder = encoder_of(model, 64)
    cut(encoder, Depth(projected=False))
    assert encoder.dim == 512
    torch.testing.assert_close(projection(encoder.encode_image(pixels)), whole, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(encoder.encode_image(pixels), whole, atol=1e-2)


def encoder_of(model: open_clip.CLIP, image_size: int) -> OpenCLIPEncoder:
    """An encoder around a model with random weights."""
    transform = open_clip.image_transform(image_size, is_train=False)
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    return OpenCLIPEncoder(model, transform, tokenizer, name="x", dim=24, fingerprint="x")


def test_layers_that_are_not_there(tmp_path: Path) -> None:
    folder, _ = folder_with("resnet", tmp_path / "model")
    with pytest.raises(
        ModelError, match="ModifiedResNet, is no stack of transformer blocks: choose the layer of the other"
    ):
        OpenCLIP(name="x", architecture=f"local-dir:{folder}", layer=2).load(Artifacts(tmp_path), "cpu")
    with pytest.raises(ModelError, match="model.layer=.null,4.: the text tower has 3 blocks"):
        OpenCLIP(name="x", architecture=f"local-dir:{folder}", layer=[None, 4]).recipe()
    with pytest.raises(ModelError, match="model.layer=0 must be a number"):
        OpenCLIP(name="x", architecture="RN50", layer=0)


@pytest.mark.parametrize(
    ("layer", "same"), [(-1, None), ([-1, -1], None), ([-1, 2], [None, 2]), ([-3, -1], [-3, None])]
)
def test_all_blocks_have_one_address(layer: Any, same: Any) -> None:
    assert Depth(layer).recipe() == Depth(same).recipe()
    assert Depth(layer).cuts == Depth(same).cuts


def test_stores_in_which_a_projection_was_left_are_not_taken_for_ones_without() -> None:
    assert Depth(projected=False).recipe()["depth"] != {"layer": [None, None], "projected": False}
