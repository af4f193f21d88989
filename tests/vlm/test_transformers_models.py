"""Models of transformers against transformers' own functions and processors."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoProcessor

from mmmono.core.artifacts import Artifacts
from mmmono.core.errors import ModelError
from mmmono.pipeline.transformers_model import Transformers
from mmmono.vlm import TransformersEncoder, load_transformers
from mmmono.vlm.transformers_sources import transformers_source
from tests.vlm.tiny_transformers import write_tiny

KINDS = ("clip", "siglip", "siglip2", "aimv2", "align")
CAPTIONS = ["a photo of a cat", "two dog", "the big red dog on the small green grass " * 3]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of the tiny model of a type."""
    root = tmp_path_factory.mktemp("transformers")

    def folder(kind: str) -> Path:
        return root / kind if (root / kind).exists() else write_tiny(root / kind, kind)

    return folder


@pytest.fixture
def images() -> list[Image.Image]:
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (*size, 3), np.uint8)) for size in ((50, 70), (33, 32), (200, 40))]


def own_features(folder: Path, images: list[Image.Image], length: int = 20) -> tuple[Tensor, Tensor]:
    """What transformers itself makes of images and captions."""
    model: Any = AutoModel.from_pretrained(folder).eval()
    processor: Any = AutoProcessor.from_pretrained(folder)
    texts = processor.tokenizer(CAPTIONS, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    with torch.inference_mode():
        image = model.get_image_features(**processor.image_processor(images=images, return_tensors="pt"))
        text = model.get_text_features(**texts)
    return getattr(image, "pooler_output", image), getattr(text, "pooler_output", text)


def embedded(encoder: TransformersEncoder, images: list[Image.Image]) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        image = encoder.encode_image(torch.stack([encoder.preprocess(one) for one in images]))
        return image, encoder.encode_text(encoder.tokenize(CAPTIONS))


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_are_those_of_transformers_with_its_own_processor(
    written: Callable[[str], Path], images: list[Image.Image], kind: str
) -> None:
    folder = written(kind)
    encoder = load_transformers(str(folder))
    image, text = embedded(encoder, images)
    wanted_image, wanted_text = own_features(folder, images)
    torch.testing.assert_close(image, wanted_image, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(text, wanted_text, atol=1e-5, rtol=1e-5)
    assert image.std() > 0.01, "images differ"
    assert encoder.dim == image.shape[1] == text.shape[1] == Transformers(name="x", id=str(folder)).dim
    worker = pickle.loads(pickle.dumps((encoder.preprocess, encoder.tokenize)))
    assert worker[0](images[0]).equal(encoder.preprocess(images[0]))
    assert worker[1](CAPTIONS).equal(encoder.tokenize(CAPTIONS))
    assert len(encoder.tokenize([])) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_is_embedded_the_same_in_any_batch(written: Callable[[str], Path], kind: str) -> None:
    """A batch of captions of one length has no padding: transformers then drops the mask, on which AIMv2 relies."""
    encoder = load_transformers(str(written(kind)))
    with torch.inference_mode():
        together = encoder.encode_text(encoder.tokenize(CAPTIONS))
        alone = torch.cat([encoder.encode_text(encoder.tokenize([caption])) for caption in CAPTIONS])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_captions_may_be_cut_shorter(written: Callable[[str], Path], images: list[Image.Image], kind: str) -> None:
    folder = written(kind)
    _, text = embedded(load_transformers(str(folder), context_length=6), images)
    torch.testing.assert_close(text, own_features(folder, images, length=6)[1], atol=1e-5, rtol=1e-5)
    recipes = [Transformers(name="x", id=str(folder), context_length=length).recipe() for length in (None, 20, 6)]
    assert recipes[0] == recipes[1] != recipes[2]
    with pytest.raises(ModelError, match="context_length=21 must be a whole number from 1 to 20, the positions"):
        Transformers(name="x", id=str(folder), context_length=21).recipe()


def test_pixels_can_be_optimized(written: Callable[[str], Path], images: list[Image.Image]) -> None:
    encoder = load_transformers(str(written("clip")))
    bytes_ = torch.stack([encoder.preprocess(image) for image in images])
    pixels = (bytes_ / 255).requires_grad_()
    embeddings = encoder.encode_pixels(pixels)
    torch.testing.assert_close(embeddings, encoder.encode_image(bytes_), atol=1e-5, rtol=1e-5)
    (gradient,) = torch.autograd.grad(embeddings.sum(), pixels)
    assert gradient.abs().max() > 0
    naflex = load_transformers(str(written("siglip2")))
    with pytest.raises(
        ModelError, match="takes images of any aspect ratio, and pixels are optimized for one size only"
    ):
        naflex.encode_pixels(naflex.preprocess(images[0])[None] / 255)


def test_a_fine_tune_of_one_layer_has_an_address_of_its_own(written: Callable[[str], Path], tmp_path: Path) -> None:
    base = shutil.copytree(written("clip"), tmp_path / "base")
    tuned = shutil.copytree(base, tmp_path / "tuned")
    weights = load_file(tuned / "model.safetensors")
    (middle,) = (name for name in weights if name.endswith("vision_model.encoder.layers.1.mlp.fc1.bias"))
    weights[middle][3] += 1e-3
    save_file(weights, tuned / "model.safetensors", {"format": "pt"})
    copied = shutil.copytree(base, tmp_path / "copied")

    def identity(folder: Path) -> tuple[dict[str, Any], str]:
        return Transformers(name="x", id=str(folder)).recipe(), load_transformers(str(folder)).fingerprint

    assert identity(base) == identity(copied)
    assert identity(base)[0] != identity(tuned)[0]
    assert identity(base)[1] != identity(tuned)[1]
    tokenizer = tmp_path / "copied" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"cat"', '"bat"'))
    assert identity(base)[0] != identity(copied)[0], "the tokenizer counts too"


def test_weights_that_are_overwritten_before_they_are_loaded_are_refused(
    written: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(written("clip"), tmp_path / "trained-on")
    model = Transformers(name="x", id=str(folder))
    known = dict(model.identity)
    assert model.load_checked(Artifacts(tmp_path / "artifacts"), "cpu").dim == model.dim
    weights = load_file(folder / "model.safetensors")
    save_file({name: 2 * value for name, value in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="weights of x were changed after this command had begun"):
        model.load_checked(Artifacts(tmp_path / "artifacts"), "cpu")
    assert model.identity == known


def test_shards_of_weights_count_whole(
    written: Callable[[str], Path], tmp_path: Path, images: list[Image.Image]
) -> None:
    folder = shutil.copytree(written("clip"), tmp_path / "sharded")
    (folder / "model.safetensors").unlink()
    AutoModel.from_pretrained(written("clip")).save_pretrained(folder, max_shard_size="60KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    encoder = load_transformers(str(folder))
    assert embedded(encoder, images)[0].equal(embedded(load_transformers(str(written("clip"))), images)[0])
    recipe = transformers_source(str(folder)).recipe()
    assert set(recipe["weights"]) == {"model.safetensors.index.json", *(shard.name for shard in shards)}
    shards[1].unlink()
    with pytest.raises(ModelError, match=f"lacks {shards[1].name}, which its model.safetensors.index.json names"):
        transformers_source(str(folder)).recipe()


def _edited(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _processing(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "processor_config.json"
        content = json.loads(file.read_text())
        content["image_processor"] |= changes
        file.write_text(json.dumps(content))

    return change


def _without_padding(folder: Path) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pad_token": None}))


def _only_pickles(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _of_open_clip(folder: Path) -> None:
    (folder / "config.json").rename(folder / "open_clip_config.json")


def _without(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def _cut_off(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def _with_weights(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    return rewrite


@pytest.mark.parametrize(
    ("spoil", "says", "early"),
    [
        (lambda folder: _edited(folder, model_type="blip"), "of the type 'blip', and clip, siglip, .* are known", True),
        (lambda folder: _edited(folder, model_type="siglip_vision_model"), "of the type 'siglip_vision_model'", True),
        (_only_pickles, "as pytorch_model.bin alone, and pickles, which can run code, are not read: if you trust", True),
        (_of_open_clip, "no config.json, but open_clip's .* say model=open_clip model.architecture=local-dir:", True),
        (_without("config.json"), "has no config.json: give a model of transformers", True),
        (_without("model.safetensors"), "has no weights: model.safetensors or .* is wanted", True),
        (lambda folder: (folder / "config.json").write_text("{"), "is no readable JSON", True),
        (lambda folder: (folder / "config.json").write_text("[]"), "is no configuration of transformers", True),
        (_without("tokenizer.json"), "lacks the files of its tokenizer, tokenizer.json or .* save it beside", True),
        (_without("processor_config.json"), "lacks the files of its image processor, preprocessor_config.json or", True),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "its processor cannot be loaded", False),
        (_cut_off, "its weights cannot be loaded", False),
        (_processing(do_center_crop=False), "images of other shapes to other sizes .32 × 32, 32 × 48, 48 × 32 p", False),
        (_processing(do_resize=False, do_center_crop=False), "to other sizes .64 × 64, 64 × 96, 96 × 64 pixels", False),
        (_processing(crop_size={"height": 20, "width": 40}), "its image processor makes nothing that the model t", False),
        (_processing(size={"longest_edge": 32}), "its image processor makes nothing .* compare its preprocessor_", False),
        (_processing(resample=4), "its image processor makes nothing that the model takes .*: compare", False),
        (_without_padding, "its tokenizer makes nothing that .*padding token.* compare its tokenizer_config.json", False),
        (_with_weights(lambda w: w.pop("visual_projection.weight")), "its weights lack visual_projection.weight", False),
        (
            _with_weights(lambda w: w["visual_projection.weight"].fill_(float("nan"))),
            "visual_projection.weight holds NaN or infinite numbers",
            False,
        ),
    ],
)  # fmt: skip
def test_bad_models_are_one_line_with_the_remedy(
    written: Callable[[str], Path], tmp_path: Path, spoil: Callable[[Path], None], says: str, early: bool
) -> None:
    folder = shutil.copytree(written("clip"), tmp_path / "model")
    spoil(folder)
    option = Transformers(name="x", id=str(folder))
    with pytest.raises(ModelError, match=says) as raised:
        option.recipe() if early else option.load(Artifacts(tmp_path), "cpu")  # early: before anything is loaded
    assert "\n" not in str(raised.value)


def test_a_folder_that_is_not_there() -> None:
    with pytest.raises(ModelError, match="model.id=/no/such is no folder: give one that save_pretrained wrote"):
        Transformers(name="x", id="/no/such").recipe()


@pytest.mark.parametrize("projected", [True, False])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_any_layer_is_pooled_as_the_last_one_is(
    written: Callable[[str], Path], images: list[Image.Image], kind: str, projected: bool
) -> None:
    """Against the hidden states that transformers returns, through its own norms, heads and projections."""
    folder = written(kind)
    model: Any = AutoModel.from_pretrained(folder).eval()
    processor: Any = AutoProcessor.from_pretrained(folder)
    pixels = processor.image_processor(images=images, return_tensors="pt")
    texts = processor.tokenizer(CAPTIONS, padding="max_length", truncation=True, max_length=20, return_tensors="pt")
    with torch.inference_mode():
        hidden = model.vision_model(**pixels, output_hidden_states=True).hidden_states
        image = model.vision_model.post_layernorm(hidden[2])
        image = image[:, 0] if kind == "clip" else model.vision_model.head(image)
        hidden = model.text_model(**texts, output_hidden_states=True).hidden_states
        ends = (texts["input_ids"] == 3).int().argmax(1) if kind == "clip" else torch.full((3,), -1)
        text = model.text_model.final_layer_norm(hidden[1])[torch.arange(3), ends]
        if projected:
            image = model.visual_projection(image) if kind == "clip" else image
            text = model.text_projection(text) if kind == "clip" else model.text_model.head(text)
    option = Transformers(name="x", id=str(folder), layer=[-2, 1], projected=projected)
    if kind == "clip" and not projected:
        with pytest.raises(
            ModelError, match="embeddings of images are 48 wide and those of texts 32.*choose model.proj"
        ):
            option.load(Artifacts(folder / "artifacts"), "cpu")
        return
    encoder = option.load(Artifacts(folder / "artifacts"), "cpu")
    assert isinstance(encoder, TransformersEncoder)
    found = embedded(encoder, images)
    torch.testing.assert_close(found, (image, text), atol=1e-5, rtol=1e-5)
    assert encoder.dim == option.dim == image.shape[1]
    whole = Transformers(name="x", id=str(folder))
    assert option.recipe() != whole.recipe()
    assert "depth" not in whole.recipe()
    assert encoder.fingerprint != load_transformers(str(folder)).fingerprint


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (4, "model.layer=4: the image tower has 3 blocks: choose 1 to 3, or -1 to -3"),
        ([None, -4], "the text tower has 3 blocks"),
        (0, "model.layer=0 must be a number of blocks, at least 1, or -1 for all"),
        ([1, 2, 3], "must be a number of blocks"),
        ("last", "must be a number of blocks"),
        (1.5, "must be a number of blocks"),
    ],
)
def test_layers_that_are_not_there(written: Callable[[str], Path], layer: Any, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        Transformers(name="x", id=str(written("clip")), layer=layer).recipe()


def test_an_efficientnet_has_no_layers_to_choose(written: Callable[[str], Path]) -> None:
    folder = written("align")
    with pytest.raises(
        ModelError, match="AlignVisionModel, is no stack of transformer blocks: choose .* alone, .null,-2"
    ):
        Transformers(name="x", id=str(folder), layer=2).load(Artifacts(folder / "artifacts"), "cpu")
    encoder = Transformers(name="x", id=str(folder), layer=[None, 2]).load(Artifacts(folder / "artifacts"), "cpu")
    assert len(encoder.model.text_model.encoder.layer) == 2


def test_a_folder_asks_no_hub(written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network each question would take seconds."""

    def asked() -> bool:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("mmmono.vlm.hub._hub_answers", asked)
    folder = written("clip")
    option = Transformers(name="x", id=str(folder))
    assert option.recipe()
    assert option.load(Artifacts(folder / "artifacts"), "cpu").dim == option.dim
