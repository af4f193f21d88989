from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from open_clip.pretrained import get_pretrained_cfg
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image
from safetensors.torch import save_file
from torch.testing import assert_close

from mmmono.core.artifacts import Artifacts
from mmmono.core.errors import ModelError
from mmmono.pipeline.models import OpenCLIP
from mmmono.vlm import load_open_clip
from mmmono.vlm.loading import download_advice
from mmmono.vlm.sources import model_source
from mmmono.vlm.weight_settings import WeightSettings

CONFIG: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"layers": 1, "width": 64, "patch_size": 16, "image_size": 32},
    "text_cfg": {"width": 64, "heads": 2, "layers": 1},
}
SQUASHED = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.5], "interpolation": "bilinear", "resize_mode": "squash"}
PIXELS = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("configs")
    (folder / "mmmono-settings.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    path = tmp_path / "weights" / "tiny.safetensors"
    path.parent.mkdir()
    save_file({k: v.contiguous() for k, v in open_clip.create_model("mmmono-settings").state_dict().items()}, path)
    return path


@pytest.fixture
def folder(tmp_path: Path, weights: Path) -> Path:
    """A model as open_clip publishes it, whose preprocessing and activation are not the usual ones."""
    folder = tmp_path / "published model"
    folder.mkdir()
    config = {"model_cfg": {**CONFIG, "quick_gelu": True}, "preprocess_cfg": SQUASHED}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    (folder / "open_clip_model.safetensors").write_bytes(weights.read_bytes())
    return folder


def pixels_of(preprocess: dict[str, Any], size: int = 32) -> torch.Tensor:
    cfg = PreprocessCfg(**{**merge_preprocess_dict(PreprocessCfg(), preprocess), "size": size})
    return image_transform_v2(cfg, is_train=False)(Image.fromarray(PIXELS))


def pixels_through(encoder: Any) -> torch.Tensor:
    raw = encoder.preprocess(Image.fromarray(PIXELS)).float()
    return torch.addcmul(encoder._shift, raw, encoder._scale)


@pytest.mark.parametrize(("architecture", "tag"), open_clip.list_pretrained())
def test_the_advice_of_a_failed_download_gives_what_the_tag_gives(
    architecture: str, tag: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "checkpoint"
    file.touch()
    entry = get_pretrained_cfg(architecture, tag)
    advice = dict(word.removeprefix("model.").split("=") for word in shlex.split(download_advice(tag, entry)))
    assert advice.pop("pretrained") == "/path/to/checkpoint"
    settings = WeightSettings(
        preprocess_of=advice.pop("preprocess_of"), quick_gelu=bool(advice.pop("force_quick_gelu", None)) or None
    )
    assert not advice
    by_path = model_source(architecture, str(file), settings)
    by_tag = model_source(architecture, tag, WeightSettings())
    assert by_path.recipe() == by_tag.recipe()
    size = open_clip.get_model_config(architecture)["vision_cfg"]["image_size"]
    assert by_tag.preprocess == {**merge_preprocess_dict(PreprocessCfg(), entry), "size": size}
    assert by_tag.quick_gelu == bool(
        open_clip.get_model_config(architecture).get("quick_gelu") or entry.get("quick_gelu")
    )


def test_single_settings_reach_the_pixels(weights: Path) -> None:
    usual = load_open_clip("mmmono-settings", str(weights))
    assert_close(pixels_through(usual), pixels_of({}), atol=1e-5, rtol=1e-5)
    own = load_open_clip("mmmono-settings", str(weights), settings=WeightSettings(**SQUASHED))
    assert_close(pixels_through(own), pixels_of(SQUASHED), atol=1e-5, rtol=1e-5)
    siglip = load_open_clip(
        "mmmono-settings", str(weights), settings=WeightSettings(preprocess_of="ViT-B-16-SigLIP/webli", std=[1, 1, 1])
    )
    expected = {**get_pretrained_cfg("ViT-B-16-SigLIP", "webli"), "std": (1, 1, 1)}
    assert_close(pixels_through(siglip), pixels_of(expected), atol=1e-5, rtol=1e-5)
    assert len({usual.fingerprint, own.fingerprint, siglip.fingerprint}) == 3


def test_sizes_that_weights_were_trained_with(weights: Path) -> None:
    settings = WeightSettings(image_size=64, context_length=20)
    encoder = load_open_clip("mmmono-settings", str(weights), settings=settings)
    assert encoder.preprocess(Image.fromarray(PIXELS)).shape == (3, 64, 64)
    assert encoder.tokenize.tokenizer(["a cat"]).shape == (1, 20)
    assert encoder.encode_image(torch.zeros(1, 3, 64, 64)).shape == (1, 24)
    assert encoder.encode_text(encoder.tokenize(["a " * 50])).shape == (1, 24)


def test_a_configuration_beside_a_file_is_read(folder: Path, weights: Path) -> None:
    beside = load_open_clip("mmmono-settings", str(folder / "open_clip_model.safetensors"))
    assert_close(pixels_through(beside), pixels_of(SQUASHED), atol=1e-5, rtol=1e-5)
    assert isinstance(beside.model.transformer.resblocks[0].mlp.gelu, open_clip.transformer.QuickGELU)
    explicit = load_open_clip(
        "mmmono-settings", str(folder / "open_clip_model.safetensors"), settings=WeightSettings(resize_mode="longest")
    )
    assert_close(pixels_through(explicit), pixels_of({**SQUASHED, "resize_mode": "longest"}), atol=1e-5, rtol=1e-5)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["embed_dim"] = 48
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="says embed_dim=48, and mmmono-settings has 24"):
        load_open_clip("mmmono-settings", str(folder / "open_clip_model.safetensors"))


def test_a_folder_is_what_open_clip_makes_of_it(folder: Path) -> None:
    encoder = load_open_clip(f"local-dir:{folder}", None)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    image = transform(Image.fromarray(PIXELS))[None]
    assert_close(pixels_through(encoder), image[0], atol=1e-5, rtol=1e-5)
    assert_close(encoder.encode_image(image), model.encode_image(image), atol=1e-5, rtol=1e-4)
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["a cat", "two dogs"])
    assert_close(encoder.encode_text(tokens), model.encode_text(tokens), atol=1e-5, rtol=1e-4)


def test_a_folders_recipe_is_its_content_not_its_place(folder: Path, tmp_path: Path) -> None:
    def option() -> OpenCLIP:
        architecture = f"local-dir:{folder}"
        return OpenCLIP(name=architecture, architecture=architecture)

    first = option()
    recipe = first.recipe()
    assert (first.name, first.dim) == ("published-model", 24)
    assert recipe["preprocess"]["resize_mode"] == "squash"
    assert str(tmp_path) not in json.dumps(recipe)
    folder = folder.rename(tmp_path / "moved")
    assert option().recipe() == recipe
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["mean"] = [0, 0, 0]
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    assert option().recipe() != recipe


def _epochs(folder: Path) -> None:
    weights = folder / "open_clip_model.safetensors"
    (folder / "epoch_10.safetensors").write_bytes(weights.read_bytes())
    weights.rename(folder / "epoch_1.safetensors")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: (d / "open_clip_config.json").unlink(), "there is no .*open_clip_config.json"),
        (lambda d: (d / "open_clip_model.safetensors").unlink(), "has no weights beside"),
        (lambda d: (d / "open_clip_config.json").write_text("{"), "is no readable JSON"),
        (lambda d: (d / "open_clip_config.json").write_text("[]"), "is no configuration of open_clip"),
        (lambda d: (d / "open_clip_config.json").write_text("[1, 2]"), "is no configuration of open_clip"),
        (lambda d: (d / "open_clip_config.json").write_text('"text"'), "is no configuration of open_clip"),
        (_epochs, "has several files of weights, epoch_1.safetensors, epoch_10.safetensors: call the one to load"),
        (lambda d: (d / "open_clip_config.json").write_text('{"model_cfg": 3}'), "is no configuration of open_clip"),
        (lambda d: (d / "open_clip_config.json").write_text('{"model_cfg": {}}'), "has no embed_dim"),
        (
            lambda d: (d / "open_clip_config.json").write_text(
                json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {"std": [1, 0, 1]}})
            ),
            "open_clip_config.json: std=.* must be three numbers above 0",
        ),
        (
            lambda d: (d / "open_clip_config.json").write_text(
                json.dumps({"model_cfg": {**CONFIG, "vision_cfg": {"layers": 1, "wdith": 3}}})
            ),
            "cannot build local-dir",
        ),
    ],
)
def test_broken_folders_are_reported_in_one_line(folder: Path, change: Any, says: str) -> None:
    change(folder)
    with pytest.raises(ModelError, match=says) as raised:
        load_open_clip(f"local-dir:{folder}", None)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"mean": [0.5]}, r"model\.mean=\[0.5\] must be three numbers"),
        ({"mean": "0.5"}, "model.mean=0.5 must be three numbers"),
        ({"std": [1, 1, 0]}, "above 0"),
        ({"std": [1, 1, float("nan")]}, "above 0"),
        ({"interpolation": "nearest"}, "none of bicubic, bilinear"),
        ({"resize_mode": "crop"}, "none of shortest, longest, squash"),
        ({"image_size": 0}, "model.image_size=0"),
        ({"image_size": [224, -1]}, "whole number"),
        ({"context_length": 7.5}, "model.context_length=7.5"),
        ({"fill_color": 256}, "model.fill_color=256 must be a whole number from 0 to 255"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        WeightSettings(**settings)


def test_a_reference_that_is_no_tag(weights: Path) -> None:
    with pytest.raises(ModelError, match=r"model.preprocess_of=opnai is no tag of RN50 \(closest: openai\)"):
        model_source("RN50", str(weights), WeightSettings(preprocess_of="opnai"))


def test_weights_for_other_images_or_captions_are_not_stretched_unasked(tmp_path: Path) -> None:
    model = open_clip.create_model("mmmono-settings", force_image_size=64, force_context_length=33)
    torch.save(model.state_dict(), tmp_path / "big.pt")
    with pytest.raises(ModelError, match=r"images of 64 px, and the model takes 32: set model.image_size=64"):
        load_open_clip("mmmono-settings", str(tmp_path / "big.pt"))
    with pytest.raises(ModelError, match=r"captions of 33 tokens.*set model.context_length=33"):
        load_open_clip("mmmono-settings", str(tmp_path / "big.pt"), settings=WeightSettings(image_size=64))
    settings = WeightSettings(image_size=64, context_length=33)
    encoder = load_open_clip("mmmono-settings", str(tmp_path / "big.pt"), settings=settings)
    assert encoder.model.state_dict()["visual.positional_embedding"].equal(model.visual.positional_embedding)


def test_random_weights_are_those_of_their_seed(tmp_path: Path) -> None:
    def option(seed: int) -> OpenCLIP:
        return OpenCLIP(name="random", architecture="mmmono-settings", pretrained=None, seed=seed)

    artifacts = Artifacts(tmp_path)
    first, again, other = (option(seed).load(artifacts, "cpu").fingerprint for seed in (0, 0, 1))
    assert first == again != other
    assert option(0).recipe() == option(0).recipe() != option(1).recipe()


def test_an_architecture_is_the_same_in_either_spelling() -> None:
    tag = "laion2b_s32b_b79k"
    options = [OpenCLIP(name="x", architecture=spelling, pretrained=tag) for spelling in ("ViT-H/14", "ViT-H-14")]
    assert len({option.open_clip_name for option in options}) == 1
    assert [list(option.downloads()) for option in options] == [list(options[1].downloads())] * 2 != [[], []]
    assert options[0].recipe() == options[1].recipe()


def test_what_is_not_given_or_given_twice_is_asked_for(folder: Path) -> None:
    with pytest.raises(ModelError, match="model.pretrained is not given"):
        OpenCLIP(name="x", architecture="RN50").recipe()
    with pytest.raises(ModelError, match="model.pretrained=openai has no place beside"):
        OpenCLIP(name="x", architecture=f"local-dir:{folder}", pretrained="openai").recipe()
    with pytest.raises(ModelError, match="is a folder: give the file in it, or model.architecture=local-dir:"):
        OpenCLIP(name="x", architecture="RN50", pretrained=str(folder)).recipe()


@given(st.text(min_size=1, max_size=30))
def test_any_name_can_be_a_folders(name: str) -> None:
    option = OpenCLIP(name=name, architecture="RN50", pretrained=None)
    assert re.fullmatch(r"[\w.+-]+", option.name)


def test_every_setting_changes_the_recipe(weights: Path) -> None:
    changes: dict[str, Any] = {
        **SQUASHED,
        "preprocess_of": "ViT-B-16-SigLIP/webli",
        "image_size": 64,
        "context_length": 20,
        "tokenizer": "org/tokenizer",
        "force_quick_gelu": True,
    }
    recipes = [
        json.dumps(OpenCLIP(name="x", architecture="mmmono-settings", pretrained=str(weights), **change).recipe())
        for change in ({}, *({name: value} for name, value in changes.items()))
    ]
    assert len(set(recipes)) == len(changes) + 1
