from __future__ import annotations

import pickle

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.testing import assert_close

from mmmono.vlm.open_clip_encoder import OpenCLIPEncoder, Tokenize

VISION = {"layers": 2, "width": 64, "patch_size": 16, "image_size": 32, "head_width": 32}
RESNET = {"layers": [1, 1, 1, 1], "width": 16, "image_size": 32, "head_width": 16}
TEXT = {"width": 64, "heads": 2, "layers": 2, "context_length": 77, "vocab_size": 49408}
CAPTIONS = ["a cat", "three very long captions about dogs that play in the snow, at night!", "?"]


def _encoder(model: torch.nn.Module) -> OpenCLIPEncoder:
    transform = open_clip.image_transform(32, is_train=False)
    return OpenCLIPEncoder(model, transform, open_clip.SimpleTokenizer(), name="tiny", dim=24, fingerprint="x")


def _model(custom: bool = False, vision: dict = VISION, **text: object) -> torch.nn.Module:
    torch.manual_seed(0)
    make = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    model = make(embed_dim=24, vision_cfg=vision, text_cfg={**TEXT, **text}).eval()
    # Positions as large as the tokens, so that a wrong position shows.
    torch.nn.init.normal_((model.text if custom else model).positional_embedding, std=1.0)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
@pytest.mark.parametrize("size", [(40, 60), (32, 32), (7, 90)])
def test_bytes_give_what_open_clips_own_transform_gives(mode: str, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    model = _model()
    encoder = _encoder(model)
    raw = encoder.preprocess(image)
    reference = open_clip.image_transform(32, is_train=False)(image)
    assert raw.dtype == torch.uint8
    assert raw.shape == (3, 32, 32)
    assert_close(torch.addcmul(encoder._shift, raw.float(), encoder._scale), reference, atol=1e-6, rtol=1e-6)
    with torch.inference_mode():
        expected = model.visual(reference[None])
        assert_close(encoder.encode_image(raw[None]), expected, atol=1e-5, rtol=1e-5)
        assert_close(encoder.encode_image(reference[None]), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("custom", [False, True])
@pytest.mark.parametrize("text", [{}, {"pool_type": "eos", "eos_id": 49407}, {"proj_bias": True}])
def test_short_captions_give_what_the_whole_context_gives(custom: bool, text: dict) -> None:
    model = _model(custom, **text)
    encoder = _encoder(model)
    whole, short = open_clip.tokenize(CAPTIONS), encoder.tokenize(CAPTIONS)
    assert short.shape == (3, int((whole != 0).sum(dim=1).max()))
    expected = model.encode_text(whole, normalize=False)
    assert_close(encoder.encode_text(short), expected, atol=1e-5, rtol=1e-5)
    assert_close(encoder.encode_text(whole), expected)
    assert model.encode_text(whole, normalize=False).equal(expected)  # the model itself is as it was


def _coca() -> torch.nn.Module:
    torch.manual_seed(0)
    vision = {**VISION, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    text = {**TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True}
    model = open_clip.CoCa(24, multimodal_cfg=TEXT, text_cfg=text, vision_cfg=vision).eval()
    torch.nn.init.normal_(model.text.positional_embedding, std=1.0)
    return model


@pytest.mark.slow
def test_coca_encodes_as_it_does_itself() -> None:
    model = _coca()
    transform, tokenizer = open_clip.image_transform(32, is_train=False), open_clip.SimpleTokenizer(context_length=76)
    encoder = OpenCLIPEncoder(model, transform, tokenizer, name="coca", dim=24, fingerprint="x")
    tokens = encoder.tokenize(CAPTIONS)
    assert tokens.shape == (3, 76)
    assert_close(encoder.encode_text(tokens), model.encode_text(tokens, normalize=False))
    assert_close(encoder.encode_text(tokens[:, :40]), model.encode_text(tokens[:, :40], normalize=False))
    pixels = torch.randn(2, 3, 32, 32)
    assert_close(encoder.encode_image(pixels), model.encode_image(pixels, normalize=False), atol=1e-5, rtol=1e-4)


def test_text_towers_that_read_padding_keep_it() -> None:
    bidirectional = _encoder(_model(True, no_causal_mask=True, pool_type="last"))
    assert bidirectional.tokenize(["a cat"]).shape == (1, 77)
    last = _encoder(_model(pool_type="last"))
    assert last.tokenize(["a cat"]).shape == (1, 77)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_trimming_leaves_out_padding_alone(captions: list[str]) -> None:
    whole = open_clip.tokenize(captions)
    short = Tokenize(open_clip.tokenize, 0)(captions)
    assert short.equal(whole[:, : short.shape[1]])
    assert not whole[:, short.shape[1] :].any()
    assert short[:, -1].any()


@pytest.mark.parametrize("vision", [VISION, RESNET], ids=["vit", "resnet"])
def test_gradients_reach_the_pixels_and_not_the_weights(vision: dict) -> None:
    encoder = _encoder(_model(vision=vision))
    pixels = torch.randn(2, 3, 32, 32, requires_grad=True)
    encoder.encode_image(pixels).square().sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_embeddings_are_float32_and_not_normalized() -> None:
    encoder = _encoder(_model())
    with torch.autocast("cpu", torch.bfloat16):
        image = encoder.encode_image(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
        text = encoder.encode_text(encoder.tokenize(["one", "two"]))
    for embedding in (image, text):
        assert embedding.dtype == torch.float32
        assert embedding.shape == (2, 24)
        assert not torch.allclose(embedding.norm(dim=1), torch.ones(2), atol=1e-2)


def test_workers_get_preprocessing_and_tokenizer_without_the_model() -> None:
    encoder = _encoder(_model())
    image = Image.new("RGB", (50, 40), "teal")
    preprocess, tokenize = pickle.loads(pickle.dumps((encoder.preprocess, encoder.tokenize)))
    assert len(pickle.dumps(encoder.preprocess)) < 10_000
    assert preprocess(image).equal(encoder.preprocess(image))
    assert tokenize(CAPTIONS).equal(encoder.tokenize(CAPTIONS))
