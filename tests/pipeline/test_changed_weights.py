"""Weights that are replaced after a command has asked what they are: nothing of them is put under the address of the old."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from mmmono.case_studies.adversarial.victims import Llava
from mmmono.case_studies.classifier import ImageClassifier
from mmmono.case_studies.generators import Generator
from mmmono.core.errors import ModelError
from mmmono.dictionaries import TopKSAE
from mmmono.features import FeatureStore, FeatureView
from mmmono.interpretability.embedders import paper_embedder
from mmmono.pipeline.feature_sets import SAE, make_spec
from mmmono.pipeline.generators import SD2
from mmmono.pipeline.pretrained import Pretrained
from mmmono.vlm import OpenCLIPEncoder
from tests.pipeline.test_feature_sets import GIVEN, configured
from tests.tiny_llava import tiny_llava

CHANGED = "were changed after this command had begun: run the same again"
D = 6


@pytest.fixture
def view(tmp_path: Path) -> FeatureView:
    for number, folder in enumerate(("img_emb", "text_emb")):
        (tmp_path / "store" / folder).mkdir(parents=True)
        rows = np.random.default_rng(number).normal(size=(64, D)).astype(np.float32)
        np.save(tmp_path / "store" / folder / f"{folder}_0.npy", rows)
    return FeatureView(FeatureStore(tmp_path / "store"))


def save_sae(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    TopKSAE(D, 12, 3).save_pretrained(folder)


def refused(known: Callable[[], object], change: Callable[[], object], load: Callable[[], object], option: str) -> None:
    """Ask what it is, change it, and load it: an error; what it was is what it goes on to be called."""
    before = known()
    change()
    with pytest.raises(ModelError, match=f"{option}.* {CHANGED}"):
        load()
    assert known() == before


def test_a_dictionary_of_others(tmp_path: Path, view: FeatureView) -> None:
    save_sae(tmp_path / "sae", 0)

    def made() -> Pretrained:
        return Pretrained({**GIVEN, "path": str(tmp_path / "sae"), "max_fvu": None})

    kind = made()
    refused(kind.recipe, lambda: save_sae(tmp_path / "sae", 1), lambda: kind.fit(view, True, 0), "dictionary.path=")
    made().fit(view, normalize=True, seed=0)


def test_a_dictionary_that_a_training_starts_from(tmp_path: Path, view: FeatureView) -> None:
    save_sae(tmp_path / "sae", 0)

    def made() -> SAE:
        cfg = configured("sae", f"sae.init_from={tmp_path / 'sae'}", "features.k=3", "features.expansion=2")
        kind = make_spec("sae", cfg.features.sets.sae)
        assert isinstance(kind, SAE)
        return kind

    kind = made()
    refused(kind.recipe, lambda: save_sae(tmp_path / "sae", 1), lambda: kind.untrained(view, True), "sae.init_from=")
    made().untrained(view, normalize=True)


def test_a_generator(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("one")

    class Drawn(SD2):
        def pipeline(self, encoder: OpenCLIPEncoder, device: str) -> Generator:
            return cast(Generator, (self.folder / "weights").read_text())

        folder = tmp_path

    def made() -> Drawn:
        size: dict[str, Any] = {"height": None, "width": None, "steps": 2, "guidance_scale": 1.0}
        return Drawn(encoder="ViT-H-14", weights=str(tmp_path), dtype="float32", cpu_offload=False, **size)

    encoder, workspace = object.__new__(OpenCLIPEncoder), cast(Any, type("W", (), {"device": "cpu"}))
    option = made()

    def load(option: SD2) -> object:
        return option.load(workspace, encoder)

    refused(option.recipe, lambda: (tmp_path / "weights").write_text("two"), lambda: load(option), "generator.weights=")
    assert load(made()) == "two"


@pytest.mark.slow
def test_a_classifier(tmp_path: Path) -> None:
    def save(seed: int) -> None:
        torch.manual_seed(seed)
        config = ViTConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=16
        )
        ViTForImageClassification(config).save_pretrained(tmp_path)

    save(0)
    ViTImageProcessor().save_pretrained(tmp_path)
    classifier = ImageClassifier(str(tmp_path))
    refused(classifier.identity, lambda: save(1), lambda: classifier.load("cpu"), "labels.model=")
    ImageClassifier(str(tmp_path)).load("cpu")


@pytest.mark.slow
def test_a_victim(tmp_path: Path) -> None:
    folder = tiny_llava(tmp_path / "llava")
    victim = Llava(str(folder), "<image>{request}", repeats=1, dtype="float32")
    again = Llava(str(folder), "<image>{request}", repeats=1, dtype="float32")

    def change() -> None:
        file = folder / "generation_config.json"
        file.write_text(file.read_text() + " ")

    refused(victim.identity, change, lambda: victim.load(None, "cpu"), "victim.model=")
    again.load(None, "cpu")


@pytest.mark.slow
def test_an_embedder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, sentences = tmp_path / "vit.pt", tmp_path / "sentences"
    sentences.mkdir()
    (sentences / "weights").write_text("one")
    monkeypatch.setattr("sentence_transformers.SentenceTransformer", lambda *_, **__: nn.Identity())

    def save(seed: int) -> None:
        torch.manual_seed(seed)
        torch.save(timm.create_model("test_vit").state_dict(), file)

    def fingerprint() -> str:
        return embedder.fingerprint

    save(0)
    embedder = paper_embedder("test_vit", str(sentences), str(file))
    refused(fingerprint, lambda: save(1), embedder.load, "embedder=paper")
    embedder = paper_embedder("test_vit", str(sentences), str(file))
    embedder.embed_images([Image.new("RGB", (8, 8))])  # the images' model is there; that of texts comes later
    refused(fingerprint, lambda: (sentences / "weights").write_text("two"), embedder.load, "embedder=paper")
