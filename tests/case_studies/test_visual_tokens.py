"""Visual tokens of a small LLaVA: the hook, the way into the joint space and back, and how likely words are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from mmmono.case_studies.adversarial.requests import Request
from mmmono.case_studies.adversarial.victims import Llava
from mmmono.case_studies.answer_likelihood import mean_log_probabilities
from mmmono.case_studies.visual_tokens import JointSpace, joint_space, steered_tokens, token_width
from mmmono.core.errors import ConfigError, ModelError
from mmmono.vlm import Encoder, load_transformers
from mmmono.vlm.depth import Depth, cut
from tests.tiny_clip import tiny_clip
from tests.tiny_llava import tiny_llava
from tests.vlm.tiny_transformers import write_tiny

IMAGE = Image.effect_noise((40, 30), 90)
PROMPT = "USER: <image>\n{request} ASSISTANT:"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("clip"), "clip")


@pytest.fixture(scope="module")
def encoder(clip: Path) -> Encoder:
    return load_transformers(str(clip), "tiny")


@pytest.fixture(scope="module")
def llava(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Llava:
    """One whose vision tower is that of the CLIP."""
    folder = tiny_llava(tmp_path_factory.mktemp("llava"), clip)
    victim = Llava(str(folder), PROMPT, repeats=1, max_new_tokens=6, batch_size=2, temperature=0.0, dtype="float32")
    victim.load(None, "cpu")
    return victim


def handed_over(llava: Llava) -> Tensor:
    """What the projector is given of an image."""
    kept: list[Tensor] = []
    model = llava.parts[1]
    handle = model.model.multi_modal_projector.register_forward_hook(lambda _, inputs, __: kept.append(inputs[0]))
    with torch.inference_mode():
        model(**llava.inputs(IMAGE, PROMPT))
    handle.remove()
    return kept[0]


def test_every_visual_token_is_steered_and_none_after_the_block(llava: Llava) -> None:
    before = handed_over(llava)
    assert before.shape == (1, 16, 48)
    seen: list[torch.Size] = []

    def steering(tokens: Tensor) -> Tensor:
        seen.append(tokens.shape)
        return tokens * 2 + 1

    with steered_tokens(llava.parts[1], steering):
        torch.testing.assert_close(handed_over(llava), before * 2 + 1)
    assert seen == [before.shape]
    assert torch.equal(handed_over(llava), before)
    with pytest.raises(RuntimeError), steered_tokens(llava.parts[1], steering):
        raise RuntimeError
    assert torch.equal(handed_over(llava), before)


@pytest.mark.parametrize("kind", ["transformers", "open_clip"])
def test_the_class_token_goes_where_the_model_puts_the_image(encoder: Encoder, kind: str) -> None:
    """The joint space of tokens is the model's own: its class token's embedding is the image's."""
    chosen: Encoder = encoder if kind == "transformers" else tiny_clip()
    model = chosen.model  # type: ignore[attr-defined]
    kept: list[Tensor] = []
    norm = model.vision_model.post_layernorm if kind == "transformers" else model.visual.ln_post
    norm.register_forward_hook(lambda _, inputs, __: kept.append(inputs[0]))
    with torch.inference_mode():
        embedding = chosen.encode_image(chosen.preprocess(IMAGE.convert("RGB"))[None])
    token = kept[0] if kept[0].ndim == 2 else kept[0][:, 0]
    space = JointSpace.of(chosen)
    assert space is not None
    seen: list[Tensor] = []
    same = space.steered(token, lambda e: seen.append(e) or e)
    torch.testing.assert_close(seen[0], embedding, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(same, token)


def test_a_token_moves_by_the_smallest_change_that_moves_its_embedding(encoder: Encoder) -> None:
    space = JointSpace.of(encoder)
    assert space is not None
    rng = np.random.default_rng(0)
    tokens = torch.tensor(rng.standard_normal((2, 3, 48)), dtype=torch.float32)
    wanted = rng.standard_normal((2, 3, 24)) * 0.1
    moved = space.steered(tokens, lambda e: e + torch.tensor(wanted, dtype=torch.float32)).double().numpy()
    gain, projection = space.gain.double().numpy(), space.projection.double().numpy()
    for token, after, change in zip(
        tokens.double().numpy().reshape(-1, 48), moved.reshape(-1, 48), wanted.reshape(-1, 24), strict=True
    ):
        scale = np.sqrt(token.var() + space.epsilon)
        forth = (np.eye(48) - 1 / 48) @ np.diag(gain) @ projection / scale
        least = np.linalg.lstsq(forth.T, change, rcond=None)[0]  # the solution of least norm
        np.testing.assert_allclose(after - token, least, atol=2e-5)
        np.testing.assert_allclose((after - token) @ forth, change, atol=2e-5)


def test_only_the_models_own_tower_has_a_way_into_its_joint_space(
    encoder: Encoder, llava: Llava, tmp_path: Path
) -> None:
    model = llava.parts[1]
    assert joint_space(encoder, model, 48) is not None
    assert joint_space(encoder, model, 2 * 48) is None  # tokens of two layers, side by side
    other = load_transformers(str(write_tiny(tmp_path / "other", "clip", seed=1)), "other")
    assert joint_space(other, model, 48) is None
    assert joint_space(tiny_clip(), model, 48) is None
    siglip = load_transformers(str(write_tiny(tmp_path / "siglip", "siglip")), "siglip")
    assert JointSpace.of(siglip) is None  # it has no projection


@pytest.mark.parametrize("weight", ["patch", "position", "post_layernorm", "layers.2.mlp.fc1"])
def test_a_fine_tuned_tower_is_another(clip: Path, llava: Llava, weight: str) -> None:
    """A fine-tuned model may have the patches, or all but the last block, of the model that it started from."""
    tuned = load_transformers(str(clip), "tuned")
    model = tuned.model  # type: ignore[attr-defined]
    [own] = [value for name, value in model.vision_model.named_parameters() if f"{weight}_embedding.weight" in name
             or name.endswith(f"{weight}.weight")]  # fmt: skip
    rounded = own.detach().half().float()
    own.data.copy_(rounded)
    assert joint_space(tuned, llava.parts[1], 48) is not None
    own.data.mul_(1.02)
    assert joint_space(tuned, llava.parts[1], 48) is None


def test_a_tower_of_larger_images_is_another(clip: Path, llava: Llava) -> None:
    larger = load_transformers(str(clip), "larger")
    embedding = larger.model.vision_model.embeddings.position_embedding  # type: ignore[attr-defined]
    embedding.weight = torch.nn.Parameter(torch.cat([embedding.weight, embedding.weight]))
    assert joint_space(larger, llava.parts[1], 48) is None


def test_an_open_clip_model_may_be_the_one_that_the_tower_is_of(tmp_path: Path) -> None:
    chosen = tiny_clip()
    visual = chosen.model.visual  # type: ignore[attr-defined]
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(
                hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2, image_size=32,
                patch_size=16,
            ),
            text_config=LlamaConfig(
                hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
                vocab_size=9,
            ),
        )
    )  # fmt: skip
    assert joint_space(chosen, model, 64) is None
    tower = getattr(model.model.vision_tower, "vision_model", model.model.vision_tower)
    tower.embeddings.patch_embedding.weight.data.copy_(visual.conv1.weight)
    tower.embeddings.position_embedding.weight.data.copy_(visual.positional_embedding)
    tower.post_layernorm.weight.data.copy_(visual.ln_post.weight)
    tower.encoder.layers[1].mlp.fc1.weight.data.copy_(visual.transformer.resblocks[1].mlp.c_fc.weight)
    assert joint_space(chosen, model, 64) is not None
    cut(chosen, Depth([1, None]))  # the tokens of an earlier layer of the same tower
    tower.encoder.layers[0].mlp.fc1.weight.data.copy_(visual.transformer.resblocks[0].mlp.c_fc.weight)
    assert joint_space(chosen, model, 64) is not None


def test_tokens_of_the_last_layer_but_one_are_of_the_same_tower(clip: Path, encoder: Encoder, tmp_path: Path) -> None:
    folder = tiny_llava(tmp_path / "llava", clip, layer=-2)
    victim = Llava(str(folder), PROMPT, repeats=1, dtype="float32")
    victim.load(None, "cpu")
    model = victim.parts[1]
    assert joint_space(encoder, model, token_width(str(folder))) is not None
    tower = CLIPModel.from_pretrained(clip).vision_model
    with torch.inference_mode():
        states = tower(victim.inputs(IMAGE, PROMPT)["pixel_values"], output_hidden_states=True).hidden_states
    torch.testing.assert_close(handed_over(victim), states[-2][:, 1:])


@pytest.mark.parametrize("kind", ["transformers", "open_clip"])
def test_without_a_projection_the_joint_space_is_that_of_the_last_norm(clip: Path, kind: str) -> None:
    chosen: Encoder = load_transformers(str(clip), "tiny") if kind == "transformers" else tiny_clip()
    model = chosen.model  # type: ignore[attr-defined]
    if kind == "transformers":
        model.visual_projection = torch.nn.Identity()
    else:
        model.visual.proj = None
    norm = model.vision_model.post_layernorm if kind == "transformers" else model.visual.ln_post
    space = JointSpace.of(chosen)
    assert space is not None
    tokens = torch.randn(5, len(norm.weight), generator=torch.Generator().manual_seed(0))
    seen: list[Tensor] = []
    space.steered(tokens, lambda e: seen.append(e) or e)
    torch.testing.assert_close(seen[0], norm(tokens))


def test_lack_of_memory_is_an_error_that_names_the_setting(llava: Llava, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    less = (
        r"^out of GPU memory: lower victim\.batch_size=2 or victim\.max_new_tokens=\d+, or set victim\.dtype=float16$"
    )
    monkeypatch.setattr(llava.parts[1].lm_head, "forward", full)
    with pytest.raises(ConfigError, match=less):
        mean_log_probabilities(llava, IMAGE, "describe", "", ["bread"])
    with pytest.raises(ConfigError, match=less):
        llava.answers(IMAGE, Request("describe", ""), "", 0)


def test_the_width_of_tokens_is_known_without_weights(llava: Llava, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((Path(llava.model) / "config.json").read_bytes())
    assert token_width(str(tmp_path)) == 48
    with pytest.raises(ModelError, match="is no LLaVA, but a clip"):
        token_width(str(clip))
    with pytest.raises(ModelError, match="cannot be had"):
        token_width(str(tmp_path / "nowhere"))


def test_words_are_as_likely_as_their_tokens_on_average(llava: Llava) -> None:
    words = ["bread", "how to bake bread", "describe", "never seen"]
    found = mean_log_probabilities(llava, IMAGE, "describe", "how", words)
    model = llava.parts[1]
    expected = []
    for word in words:
        inputs = llava.inputs(IMAGE, f"{PROMPT.replace('{request}', 'describe')} how {word}")
        with torch.inference_mode():
            logits = model(**inputs).logits[0].double().numpy()
        ids, count = inputs["input_ids"][0].numpy(), len(word.split())
        shifted = logits - logits.max(1, keepdims=True)
        log = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        expected.append(np.mean([log[at - 1, ids[at]] for at in range(len(ids) - count, len(ids))]))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert len(mean_log_probabilities(llava, IMAGE, "describe", "", [])) == 0
    with steered_tokens(model, lambda tokens: tokens + 3):
        assert not np.allclose(
            mean_log_probabilities(llava, IMAGE, "describe", "how", words).numpy(), expected, atol=1e-3
        )
