"""The intervention moves what it should, the generators draw from it, and the measures are what they are called."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableUnCLIPImg2ImgPipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from scipy.stats import entropy, ttest_1samp

from mmmono.case_studies.control_effects import MEASURES, effects
from mmmono.case_studies.generators import Generator
from mmmono.case_studies.generators.diffusers_pipelines import check_pipeline, check_settings, check_width
from mmmono.case_studies.generators.embedding_decoder import EmbeddedImages, EmbeddingDecoder, train_embedding_decoder
from mmmono.case_studies.generators.flow import FlowPlan, fit_flow
from mmmono.case_studies.generators.sd2 import StableDiffusion2, StableDiffusion2Settings
from mmmono.case_studies.generators.sd2_unclip import StableUnCLIP, StableUnCLIPSettings
from mmmono.case_studies.image_measures import color_distance, edge_distance, mean_cosine
from mmmono.case_studies.references import read_reference
from mmmono.case_studies.text_to_image import class_sizes, draw_members, intervene, intervene_on_features, rows_of
from mmmono.core.errors import ConfigError, DataError, DictionaryError, ModelError
from mmmono.core.fingerprints import weights_identity
from mmmono.dictionaries import DictionaryFeatures, NCLHead, TopKSAE
from mmmono.features import RawFeatures
from mmmono.modality import Partition
from mmmono.modality.random_sets import Activity
from mmmono.vlm import OpenCLIPEncoder, load_open_clip
from tests.fakes import ColorPairs
from tests.tiny_diffusion import ARCHITECTURE, PIXELS, WIDTH, tiny_encoder, tiny_sd2, tiny_unclip

PARTITION = Partition(torch.arange(4), torch.arange(4, 10), torch.arange(10, 29), torch.arange(29, 32))
HORSE = Image.new("RGB", (40, 30), (200, 60, 20))
MEMBERS = torch.tensor([1, 3, 8])


# ---- the intervention


@given(
    st.floats(0, 1),
    st.lists(st.integers(0, 15), min_size=1, max_size=16, unique=True).map(torch.tensor),
    st.integers(0, 2**31),
)
@settings(max_examples=50, deadline=None)
def test_the_equation_and_nothing_else(strength: float, members: torch.Tensor, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    text, reference = torch.randn(3, 16, generator=generator), torch.randn(16, generator=generator)
    moved = intervene(text, reference, members, strength)
    alpha = 1 - strength
    expected = text.numpy().copy()
    expected[:, members] = alpha * expected[:, members] + (1 - alpha) * reference.numpy()[members]
    np.testing.assert_allclose(moved.numpy(), expected, rtol=1e-5, atol=1e-6)
    others = torch.tensor([i for i in range(16) if i not in members.tolist()], dtype=torch.int64)
    assert torch.equal(moved[:, others], text[:, others])
    assert torch.equal(intervene(text, reference, members, 0.0), text)
    assert torch.equal(intervene(text, reference, members, 1.0)[:, members], reference[members].expand(3, -1))


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_strengths_outside_their_range_are_refused(strength: float) -> None:
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        intervene(torch.zeros(4), torch.ones(4), torch.tensor([0]), strength)


def test_through_a_dictionary_only_codes_of_the_class_move() -> None:
    torch.manual_seed(0)
    sae = TopKSAE(16, 32, k=8)
    feature_set = DictionaryFeatures("sae", sae.eval())
    text, reference = 3 * torch.randn(2, 16), torch.randn(2, 16)
    members = torch.arange(0, 32, 2)
    moved = intervene_on_features(feature_set, text, reference, members, 0.4)
    length = text.norm(dim=1, keepdim=True)
    with torch.no_grad():
        own = sae.encode(text / length, "text")
        other = sae.encode(reference / reference.norm(dim=1, keepdim=True), "image")
        change = torch.zeros_like(own)
        change[:, members] = 0.4 * (other - own)[:, members]
        # The decoder is affine: a change of codes is one of the embedding by its matrix alone.
        matrix = sae.decode(torch.eye(32), "text") - sae.decode(torch.zeros(1, 32), "text")
    torch.testing.assert_close(moved, text + length * (change @ matrix))
    assert not torch.allclose(moved, text)
    assert torch.equal(intervene_on_features(feature_set, text, reference, members, 0.0), text)
    raw = intervene_on_features(RawFeatures(16), text, reference, members[:8], 0.4)
    assert torch.equal(raw, intervene(text, reference, members[:8], 0.4))
    with pytest.raises(DictionaryError, match="has no decoder"):
        intervene_on_features(DictionaryFeatures("ncl", NCLHead(16, 16)), text, reference, members[:8], 0.4)


def test_classes_are_drawn_down_to_the_smallest() -> None:
    randoms = ("Random-TextD", "Random-CrossD", "Random-ImgD")
    four = dict.fromkeys(("TextD", "CrossD", "ImgD"), 4)
    assert class_sizes(PARTITION, "equal") == {**four, **dict.fromkeys(randoms, 4), "All": 29}
    assert class_sizes(PARTITION, "equal", "size") == {**four, "Random": 4, "All": 29}
    whole = {"TextD": 6, "CrossD": 19, "ImgD": 4}
    assert class_sizes(PARTITION, "whole", "size") == {**whole, "Random": 6, "All": 29}
    assert class_sizes(PARTITION, "whole") == {**whole, **dict(zip(randoms, whole.values(), strict=True)), "All": 29}
    energy = np.random.default_rng(0).random(len(PARTITION))
    activity = Activity(energy / energy.sum(), np.ones(len(PARTITION)))
    drawn = [draw_members(PARTITION, "equal", seed, activity) for seed in range(20)]
    for sets in drawn:
        assert list(sets) == list(rows_of("energy"))
        for name in ("ImgD", "TextD", "CrossD"):
            members = sets[name].members
            assert set(members.tolist()) <= set(PARTITION[name].tolist())  # type: ignore[index]
            assert len(set(members.tolist())) == 4
            like = sets[f"Random-{name}"]
            assert max(like.members) < 29  # no dead ones
            assert not set(like.members) & set(PARTITION[name].tolist())  # type: ignore[index]
            assert abs(activity.share(like.members) / activity.share(members) - 1) == pytest.approx(like.mismatch)
        assert sets["All"].members.tolist() == list(range(29))
    assert np.mean([sets["Random-TextD"].mismatch < 0.05 for sets in drawn]) > 0.9
    assert list(draw_members(PARTITION, "equal", 3, activity, "size")) == ["TextD", "CrossD", "ImgD", "Random", "All"]
    again = draw_members(PARTITION, "equal", 3, activity)
    assert again["Random-ImgD"].members.tolist() == drawn[3]["Random-ImgD"].members.tolist()
    empty = Partition(torch.arange(32), *[torch.tensor([], dtype=torch.int64)] * 3)
    with pytest.raises(ValueError, match="no feature is TextD"):
        class_sizes(empty, "equal")
    with pytest.raises(ValueError, match="none of equal, whole"):
        class_sizes(PARTITION, "half")  # type: ignore[arg-type]


# ---- the pipelines of diffusers, small and random


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tiny")
    checkpoint = tiny_encoder(folder / "clip")
    return {
        "checkpoint": checkpoint,
        "sd2": tiny_sd2(folder / "sd2", checkpoint),
        "sd2_unclip": tiny_unclip(folder / "unclip", checkpoint),
    }


@pytest.fixture(scope="module")
def encoder(tiny: dict[str, Path]) -> OpenCLIPEncoder:
    return load_open_clip(ARCHITECTURE, str(tiny["checkpoint"]))


def sd2(folders: dict[str, Path], encoder: OpenCLIPEncoder, **settings: object) -> StableDiffusion2:
    return StableDiffusion2(StableDiffusion2Settings(weights=str(folders["sd2"]), steps=2, **settings), encoder)  # type: ignore[arg-type]


def unclip(folders: dict[str, Path], encoder: OpenCLIPEncoder, **settings: object) -> StableUnCLIP:
    return StableUnCLIP(StableUnCLIPSettings(weights=str(folders["sd2_unclip"]), steps=2, **settings), encoder)  # type: ignore[arg-type]


def same(a: Image.Image, b: Image.Image) -> bool:
    return np.array_equal(np.asarray(a), np.asarray(b))


def check_control(generator: Generator, plain: Image.Image) -> None:
    """Strength 0 is plain generation bit for bit, from the same noise; only dimensions of I change; and it shows."""
    text, reference = generator.encode("a horse", HORSE)
    assert text.shape == reference.shape
    moved = [intervene_on_features(RawFeatures(WIDTH), text, reference, MEMBERS, s) for s in (0.0, 0.7)]
    changed = (moved[1] != text).any(0).nonzero().flatten()
    assert torch.equal(changed, MEMBERS)
    drawn = generator.generate("a horse", torch.stack([*moved, text]), [3, 3, 4])
    assert same(drawn[0], plain)
    assert not same(drawn[1], plain)
    assert not same(drawn[2], plain)
    assert {image.size for image in drawn} == {(PIXELS, PIXELS)}
    assert same(generator.generate("a horse", torch.stack(moved[1:]), [3])[0], drawn[1])


@pytest.mark.slow
@pytest.mark.parametrize("projected", [False, True])
def test_stable_diffusion_2(tiny: dict[str, Path], encoder: OpenCLIPEncoder, projected: bool) -> None:
    generator = sd2(tiny, encoder, projected=projected)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny["sd2"])
    noise = torch.Generator().manual_seed(3)
    plain = pipeline("a horse", num_inference_steps=2, guidance_scale=7.5, generator=noise).images[0]
    check_control(generator, plain)


def test_stable_diffusion_2_reads_reference_layer_and_projection(
    tiny: dict[str, Path], encoder: OpenCLIPEncoder
) -> None:
    image = encoder.encode_image(encoder.preprocess(HORSE)[None])[0]
    state = encoder.model.state_dict()
    tokens, reference = sd2(tiny, encoder).encode("a horse", HORSE)
    assert tokens.shape == (77, WIDTH)
    torch.testing.assert_close(reference.norm(dim=1), tokens.norm(dim=1))
    torch.testing.assert_close(torch.cosine_similarity(reference, image[None]), torch.ones(77))
    _, own = sd2(tiny, encoder, length="own").encode("a horse", HORSE)
    torch.testing.assert_close(own, image.expand(77, -1))
    projected, _ = sd2(tiny, encoder, projected=True).encode("a horse", HORSE)
    torch.testing.assert_close(projected, tokens @ state["text_projection"])
    # The last layer, projected, holds the prompt's embedding at the end-of-text token.
    last, _ = sd2(tiny, encoder, projected=True, layer="final").encode("a horse", HORSE)
    ids = encoder.tokenize.tokenizer(["a horse"])
    torch.testing.assert_close(last[ids[0].argmax()], encoder.encode_text(ids)[0])


@pytest.mark.slow
def test_stable_unclip(tiny: dict[str, Path], encoder: OpenCLIPEncoder) -> None:
    generator = unclip(tiny, encoder)
    text, reference = generator.encode("a horse", HORSE)
    torch.testing.assert_close(reference, encoder.encode_image(encoder.preprocess(HORSE)[None]))
    torch.testing.assert_close(text.norm(), reference.norm())
    own, _ = unclip(tiny, encoder, length="own").encode("a horse", HORSE)
    torch.testing.assert_close(own, encoder.encode_text(encoder.tokenize(["a horse"])))
    pipeline = StableUnCLIPImg2ImgPipeline.from_pretrained(tiny["sd2_unclip"])
    noise = torch.Generator().manual_seed(3)
    plain = pipeline(prompt="", image_embeds=text, num_inference_steps=2, noise_level=0, generator=noise).images[0]
    check_control(generator, plain)
    guided = unclip(tiny, encoder, guided=True)
    assert not same(guided.generate("a horse", text[None], [3])[0], plain)


@pytest.mark.parametrize(("kind", "name"), [(sd2, "sd2"), (unclip, "sd2_unclip")])
def test_generators_refuse_what_cannot_work(
    tiny: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Callable[..., Generator], name: str
) -> None:
    encoder = load_open_clip(ARCHITECTURE, str(tiny["checkpoint"]))
    other = load_open_clip(ARCHITECTURE, str(tiny_encoder(tmp_path / "clip", seed=9)))
    with pytest.raises(ModelError, match="was not trained with the encoder of model="):
        kind(tiny, other)
    swapped = tiny["sd2_unclip" if name == "sd2" else "sd2"]
    with pytest.raises(ModelError, match=r"is a Stable\w+Pipeline, not a Stable\w+Pipeline: give the weights of one"):
        kind({name: swapped}, encoder)
    with pytest.raises(ConfigError, match="generator.length=meter"):
        kind(tiny, encoder, length="meter")
    generator = kind(tiny, encoder)
    text, _ = generator.encode("a horse", HORSE)

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(generator._pipeline.unet, "forward", full)
    with pytest.raises(
        ConfigError, match=r"^out of GPU memory: set generator.cpu_offload=true, generator.dtype=float16"
    ):
        generator.generate("a horse", text[None], [0])


def test_tokens_of_another_width_are_refused_unless_projected(tiny: dict[str, Path], tmp_path: Path) -> None:
    """Here already by their token embeddings, which have another shape."""
    narrow = tiny_sd2(tmp_path / "narrow", tiny["checkpoint"], width=64)
    with pytest.raises(ModelError, match="their weights differ"):
        sd2({"sd2": narrow}, load_open_clip(ARCHITECTURE, str(tiny["checkpoint"])))


def test_weights_that_cannot_be_had_are_reported_before_loading(
    tiny: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmmono.vlm.hub._hub_answers", lambda: False)
    check_pipeline(str(tiny["sd2"]), "StableDiffusionPipeline")
    for weights, message in (
        ("nobody/nothing", "cannot be reached.*generator.weights=/path/to/folder"),
        (str(tmp_path), "no diffusers pipeline"),
        ("/no/such/folder", "is no folder"),
        (str(tiny["sd2_unclip"]), "is a StableUnCLIPImg2ImgPipeline, not a StableDiffusionPipeline"),
    ):
        with pytest.raises(ModelError, match=message):
            check_pipeline(weights, "StableDiffusionPipeline")
    check_width(str(tiny["sd2"]), "text_encoder", "hidden_size", WIDTH)
    with pytest.raises(ModelError, match=r"text_encoder with hidden_size=32, the chosen model 1024"):
        check_width(str(tiny["sd2"]), "text_encoder", "hidden_size", 1024)
    with pytest.raises(ConfigError, match="generator.dtype=int8"):
        check_settings("int8", False, "cpu")
    with pytest.raises(ConfigError, match="cpu_offload=true"):
        check_settings("float16", True, "cpu")
    assert weights_identity("nobody/nothing") == "nobody/nothing"
    assert weights_identity(str(tiny["sd2"])) != weights_identity(str(tiny["sd2_unclip"]))


# ---- the embedded generator


@pytest.fixture(scope="module")
def colors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Plain images of random colors; either embedding says which, each with a noise of its own."""
    torch.manual_seed(0)
    rgb = torch.rand(300, 3)
    images = (255 * rgb).byte()[:, None, None].expand(-1, 8, 8, -1).contiguous()
    mixing = torch.linalg.qr(torch.randn(16, 16)).Q[:3]
    image, text = ((rgb - 0.5) @ mixing + 0.01 * torch.randn(300, 16) for _ in range(2))
    return images, image, text


PLAN = FlowPlan(
    pixels=8, components=8, width=64, depth=2, train_steps=250, batch_size=128, lr=3e-3, embedding_noise=0.1
)


@pytest.fixture(scope="module")
def decoder_folder(
    colors: tuple[torch.Tensor, torch.Tensor, torch.Tensor], tmp_path_factory: pytest.TempPathFactory, tiny: object
) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    train_embedding_decoder(folder, EmbeddedImages(*colors, "open_clip:colors", False), PLAN, 0)
    return folder


@pytest.mark.slow
def test_a_flow_draws_what_embeddings_of_either_modality_say(
    colors: tuple[torch.Tensor, torch.Tensor, torch.Tensor], decoder_folder: Path, encoder: OpenCLIPEncoder
) -> None:
    images, image, text = colors
    encoder.fingerprint, before = "open_clip:colors", encoder.fingerprint
    generator = EmbeddingDecoder(decoder_folder, encoder, steps=8, guidance=1.0)
    encoder.fingerprint = before
    for embeddings in (image, text):
        drawn = generator.generate("", embeddings[:60, None], range(60))
        found = np.stack([np.asarray(p).mean((0, 1)) for p in drawn])
        truth = images[:60].float().mean((1, 2)).numpy()
        for channel in range(3):
            assert np.corrcoef(found[:, channel], truth[:, channel])[0, 1] > 0.9
    one = image[:1, None].expand(3, 1, -1)
    a, b, c = generator.generate("", one, [0, 0, 1])
    assert same(a, b)
    assert not same(a, c)
    again = generator.generate("", one, [0, 0, 1])
    assert all(same(x, y) for x, y in zip((a, b, c), again, strict=True))


def test_training_depends_on_the_seed_alone(colors: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    plan = FlowPlan(pixels=8, components=4, width=16, depth=1, train_steps=5)
    state = torch.random.get_rng_state()
    a, b, c = (fit_flow(*colors, plan, seed)[0].state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["read.weight"], c["read.weight"])


def test_images_of_fewer_values_than_components_are_drawn(
    colors: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    images, image, text = colors
    flow, _ = fit_flow(images[:, :2, :2], image, text, replace(PLAN, pixels=2, components=512, train_steps=2), seed=0)
    assert flow.config["components"] == 12
    assert flow.draw(text[:3], torch.randn(3, 12), steps=2, guidance=1.0).shape == (3, 2, 2, 3)


def test_a_decoder_refuses_another_encoder_and_broken_files(
    decoder_folder: Path, encoder: OpenCLIPEncoder, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"was trained on embeddings of open_clip:colors, not of open_clip:mmmono"):
        EmbeddingDecoder(decoder_folder, encoder)
    with pytest.raises(ModelError, match="no readable embedding decoder"):
        EmbeddingDecoder(tmp_path, encoder)
    one = torch.zeros(1, 8, 8, 3, dtype=torch.uint8), torch.ones(1, 4), torch.ones(1, 4)
    with pytest.raises(ModelError, match="1 images"):
        fit_flow(*one, PLAN, seed=0)


# ---- references and measures


def test_paths_of_references_may_have_an_at_sign(tmp_path: Path) -> None:
    file = tmp_path / "me@home" / "horse@2x.png"
    file.parent.mkdir()
    HORSE.save(file)
    assert read_reference(str(file), ColorPairs()).name == "horse_2x"
    assert read_reference(f"{file}@sketch", ColorPairs()).name == "horse_2x_sketch"
    with pytest.raises(DataError, match="there is no file .*me@home/cow.png"):
        read_reference(f"{file.parent}/cow.png", ColorPairs())
    with pytest.raises(ConfigError, match="asks for style 'crayon'"):
        read_reference(f"{file}@crayon", ColorPairs())


def test_references(tmp_path: Path) -> None:
    source = ColorPairs()
    Image.new("RGB", (50, 40), (10, 200, 10)).save(tmp_path / "my horse.png")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    from_file = read_reference(f"{tmp_path}/my horse.png@oil_painting", source)
    assert (from_file.name, from_file.key) == ("my_horse_oil_painting", None)
    pair = read_reference("1/2", source)
    assert (pair.name, pair.key, pair.image.size) == ("1_2", "1/2", (224, 224))
    for entry, error, message in (
        (f"{tmp_path}/broken.jpg", DataError, "broken.jpg: unreadable image"),
        ("1/2@cubist", ConfigError, "style 'cubist': choose sketch, oil_painting"),
        (f"{tmp_path}/absent.png", DataError, "there is no file"),
    ):
        with pytest.raises(error, match=message):
            read_reference(entry, source)


def test_styles_change_what_they_are_named_for(tmp_path: Path) -> None:
    flat = Image.new("RGB", (224, 224), "white")
    flat.paste((160, 100, 50), (60, 60, 160, 160))
    flat.save(tmp_path / "a.png")
    sketch, oil = (
        np.asarray(read_reference(f"{tmp_path}/a.png@{style}", ColorPairs()).image, dtype=float)
        for style in ("sketch", "oil_painting")
    )
    assert np.ptp(sketch, axis=2).max() == 0  # gray
    assert sketch[100, 100].mean() > 240  # areas are empty,
    assert sketch[60, 60:160].mean() < 220  # edges are not
    assert oil[:40].std() > 5  # the ground has strokes
    assert np.ptp(oil[:40], axis=2).mean() > 30  # and a color


def test_distances_against_their_definitions() -> None:
    rng = np.random.default_rng(0)
    a, b = (Image.fromarray(rng.integers(0, hi, (64, 64, 3), np.uint8)) for hi in (120, 256))
    histograms = []
    for image in (a, b):
        bins = (np.asarray(image) // 32).astype(int)
        counts = np.bincount((bins @ [64, 8, 1]).ravel(), minlength=512)
        histograms.append(counts / counts.sum())
    middle = (histograms[0] + histograms[1]) / 2
    divergence = np.mean([entropy(h, middle, base=2) for h in histograms])
    assert color_distance(a, b) == pytest.approx(divergence**0.5)
    assert color_distance(a, a) == 0
    black, white = (Image.new("RGB", (64, 64), c) for c in ("black", "white"))
    assert color_distance(black, white) == pytest.approx(1)
    assert edge_distance(black, white) == 0
    assert edge_distance(a, a.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) == pytest.approx(0, abs=1e-9)
    # A step across the range has gradient 1 in the two columns beside it, so 2 of 64 are moved by 1.
    step = Image.new("RGB", (64, 64), "black")
    step.paste("white", (32, 0, 64, 64))
    assert edge_distance(step, black) == pytest.approx(2 / 64)
    assert edge_distance(b, b.filter(ImageFilter.GaussianBlur(2))) > 0.1
    x, y = torch.randn(2, 5), torch.randn(3, 5)
    np.testing.assert_allclose(mean_cosine(x, y), (x @ y.T).mean(1), rtol=1e-5)


def test_effects_are_paired_with_plain_generation() -> None:
    rows, base = [], []
    rng = np.random.default_rng(0)
    for reference in ("a", "b"):
        for seed in range(6):
            own = float(rng.standard_normal())  # of the noise, in all cells alike
            base.append({"reference": reference, "seed": seed, **dict.fromkeys(MEASURES, own)})
            for members, gain in (("TextD", 2.0), ("ImgD", 0.5), ("Random-TextD", 0.0)):
                rows += [
                    {
                        "feature_set": "raw", "reference": reference, "members": members, "seed": seed, "strength": s,
                        **dict.fromkeys(MEASURES, own + gain * s),
                    }
                    for s in (0.0, 0.5)
                ]  # fmt: skip
    found = effects(pd.DataFrame(rows), pd.DataFrame(base))
    assert {e.reference for e in found} == {"all", "a", "b"}
    at = {(e.members, e.measure): e for e in found if e.strength == 0.5 and e.reference == "all"}
    for members, change in (("TextD", 1.0), ("ImgD", 0.25), ("TextD − Random-TextD", 1.0), ("TextD − ImgD", 0.75)):
        row = at[members, "color_distance"].to_row()
        assert row["change"] == pytest.approx(change)
        assert math.isnan(row["change_low"]), "equal changes say nothing about those of other seeds"
    assert all(e.change.value == pytest.approx(0) for e in found if e.strength == 0)


def test_seeds_are_the_unit_and_differences_are_tested_together() -> None:
    """Two references disagree about everything: the mean over both is tested over seeds alone, as scipy would."""
    rng = np.random.default_rng(0)
    keys = [(reference, seed) for reference in ("a", "b") for seed in range(8)]
    noise = {(members, *key): rng.standard_normal() for members in ("TextD", "ImgD", "Random") for key in keys}
    rows = [
        {"feature_set": "raw", "reference": r, "members": m, "seed": s, "strength": 0.5,
         **dict.fromkeys(MEASURES, value + (1.5 if m == "TextD" else 0) + (5 if r == "a" else -5))}
        for (m, r, s), value in noise.items()
    ]  # fmt: skip
    base = [{"reference": r, "seed": s, **dict.fromkeys(MEASURES, 0.0)} for r, s in keys]
    found = {
        (e.members, e.reference): e
        for e in effects(pd.DataFrame(rows), pd.DataFrame(base)) if e.measure == "edge_distance"
    }  # fmt: skip
    per_seed = [np.mean([noise["TextD", r, s] - noise["Random", r, s] for r in "ab"]) + 1.5 for s in range(8)]
    expected = ttest_1samp(per_seed, 0)
    row = found["TextD − Random", "all"].to_row()
    assert row["p"] == pytest.approx(expected.pvalue)
    assert (row["change_low"], row["change_high"]) == pytest.approx(tuple(expected.confidence_interval()))
    assert row["p_holm"] == pytest.approx(min(1, 12 * expected.pvalue), rel=0.7)  # three differences, four measures
    assert found["TextD", "all"].to_row()["p_holm"] is None
    assert found["ImgD − Random", "a"].change.freedom == 7
