"""Addresses of dictionaries, and the options that errors name."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from mmmono.core.errors import ConfigError
from mmmono.dictionaries import TopKSAE, fraction_of_variance_unexplained
from mmmono.dictionaries.readers.reading import files_of, read_dictionary
from mmmono.dictionaries.saelens import export_to_saelens
from mmmono.features import MODALITIES, FeatureStore, FeatureView
from mmmono.pipeline.feature_sets import SAE, UntrainedSAE, make_spec
from mmmono.pipeline.pretrained import Pretrained
from mmmono.pipeline.specs import FeatureSetSpec, Trained
from mmmono.pipeline.training import plan_training, snapshots
from tests.dictionaries.test_readers import batch_topk_file
from tests.pipeline.conftest import REPOSITORY, Command

TRAINED = sorted(  # options whose dictionaries are made with the width of the embeddings alone
    file.stem
    for file in (REPOSITORY / "conf/features").glob("*.yaml")
    if any(kind in file.read_text() for kind in (".SAE\n", ".NCL\n", ".Matched\n", ".UntrainedSAE\n"))
)
GIVEN = {"path": "", "file": None, "kind": None, "k": None, "input_scale": None, "max_fvu": 1.0, "any_model": False}


def configured(features: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        return compose("train", [f"features={features}", *overrides])


def address(path: Path) -> str:
    return str(Pretrained({**GIVEN, "path": str(path)}).recipe()["files"])


def test_an_address_has_all_that_a_file_is_read_from(tmp_path: Path) -> None:
    file = tmp_path / "trainer_0" / "checkpoints" / "ae_9.pt"
    file.parent.mkdir(parents=True)
    torch.save(batch_topk_file(), file)
    (file.parent / "notes.json").write_text("{}")
    seen = [address(file)]
    for configuration in (tmp_path / "trainer_0" / "config.json", file.parent / "config.json"):
        for kind in ("BatchTopKSAE", "AutoEncoderTopK"):
            configuration.write_text(json.dumps({"trainer": {"dict_class": kind, "k": 3}}))
            seen.append(address(file))
    assert len(set(seen)) == 5
    assert sorted(files_of(file)) == ["../config.json", "ae_9.pt", "config.json"]
    (file.parent / "notes.json").write_text("[]")
    assert address(file) == seen[-1]


def test_an_address_has_the_files_of_a_folder_alone(tmp_path: Path) -> None:
    export_to_saelens(TopKSAE(6, 12, 3), tmp_path / "sae")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "sae" / "README.md").write_text("")
    assert sorted(files_of(tmp_path / "sae")) == ["cfg.json", "sae_weights.safetensors"]
    assert sorted(files_of(tmp_path / "sae" / "sae_weights.safetensors")) == [
        "../config.json",
        "cfg.json",
        "sae_weights.safetensors",
    ]
    before = address(tmp_path / "sae")
    (tmp_path / "sae" / "cfg.json").write_text("{}")
    assert address(tmp_path / "sae") != before


@torch.no_grad()
def test_a_dictionary_of_one_modality_is_taken_and_one_of_neither_refused(tmp_path: Path) -> None:
    """As the comment of `dictionary.max_fvu` says: one that was trained on images alone may be looked at on texts."""
    for folder, mean in (("img_emb", 0.0), ("text_emb", 5.0)):
        (tmp_path / folder).mkdir()
        values = np.random.default_rng(0).standard_normal((50, 6)) + mean
        np.save(tmp_path / folder / f"{folder}_0.npy", values.astype(np.float32))
    view = FeatureView(FeatureStore(tmp_path))
    read = {modality: view.read(modality, 0, 50) for modality in MODALITIES}
    sae = TopKSAE(6, 12, 6)
    sae.W_dec.copy_(torch.cat([torch.eye(6), -torch.eye(6)]))
    sae.W_enc.copy_(0.5 * sae.W_dec)  # it finds half of what is not in b_pre
    for name, b_pre in (("images", 0.0), ("neither", 10.0)):
        sae.b_pre.fill_(b_pre)
        sae.save_pretrained(tmp_path / name)
    taken = Pretrained({**GIVEN, "path": str(tmp_path / "images")}).fit(view, False, 0)
    fvu = {m: fraction_of_variance_unexplained(z, taken.decode(taken.encode(z, m), m)) for m, z in read.items()}
    assert fvu["image"] < 0.5 < 5 < fvu["text"]
    with pytest.raises(ConfigError, match=r"unexplained of .* of images, .* of texts, more than dictionary.max_fvu=1"):
        Pretrained({**GIVEN, "path": str(tmp_path / "neither")}).fit(view, False, 0)
    comment = (REPOSITORY / "conf" / "features" / "pretrained.yaml").read_text()
    assert "unexplained of images and of texts too" in comment


def test_a_file_that_does_not_say_all_is_opened_as_pretrained_first(tmp_path: Path) -> None:
    torch.save(batch_topk_file(), tmp_path / "ae.pt")
    view: Any = SimpleNamespace(dim=6)
    settings = {"expansion": 2, "k": 3, "encoder_bias": True, "pre_bias": False}
    start = SAE({**settings, "init_from": str(tmp_path / "ae.pt")}, "batch_topk_sae")
    start.section = "batch_topk"
    with pytest.raises(
        ConfigError, match=r"batch_topk.init_from=.* give dictionary.kind, .* features=pretrained: run it"
    ):
        start.untrained(view, normalize=True)
    opened = Pretrained({**GIVEN, "path": str(tmp_path / "ae.pt"), "kind": "BatchTopKSAE"})
    read_dictionary(opened.found, opened.hints).save_pretrained(tmp_path / "made")
    SAE({**settings, "init_from": str(tmp_path / "made")}, "batch_topk_sae").untrained(view, normalize=True)


def test_snapshots_come_in_the_order_of_their_steps(tmp_path: Path) -> None:
    """Also beyond the 999,999 steps that names of six digits hold."""
    steps = [0, 250, 999_750, 1_000_000, 10_000_000]
    for step in steps:
        TopKSAE(4, 4, 1).save_pretrained(tmp_path / "snapshots" / f"{step:06d}")
    assert [step for step, _ in snapshots(tmp_path)] == steps


def test_a_training_has_the_address_of_its_class() -> None:
    """`features=batch_topk features.sets.batch_topk.architecture=matryoshka_sae` is no BatchTopK."""
    features: Any = SimpleNamespace(view=View(), recipe={}, store=SimpleNamespace(path=Path("store")))
    recipes = []
    for more in ((), ("features.sets.batch_topk.architecture=matryoshka_sae",)):
        cfg = configured("batch_topk", "trainer=cpu", *more)
        kind = make_spec("batch_topk", cfg.features.sets.batch_topk)
        assert isinstance(kind, Trained)
        recipes.append(plan_training("batch_topk", kind, features, features, cfg).artifact[2])
    assert [recipe.get("architecture") for recipe in recipes] == ["batch_topk_sae", "matryoshka_sae"]
    assert recipes[0]["settings"] == recipes[1]["settings"]


def test_an_address_has_the_class_of_an_autoencoder() -> None:
    settings = {"k": 3}
    recipes = [
        SAE(settings, architecture).recipe() for architecture in ("topk_sae", "batch_topk_sae", "matryoshka_sae")
    ]
    assert recipes[0] == {"settings": settings}  # as before there were others
    assert [recipe.get("architecture") for recipe in recipes[1:]] == ["batch_topk_sae", "matryoshka_sae"]


def composed(features: str, *overrides: str) -> FeatureSetSpec:
    return make_spec(features, configured(features, *overrides).features.sets[features])


class View:
    """As much of a view as an untrained autoencoder needs."""

    dim = 16
    store = type("Store", (), {"path": Path()})

    def __len__(self) -> int:
        return 4

    def blocks(self) -> Any:
        yield type("Block", (), {"image": np.ones((4, 16), np.float32), "text": np.ones((4, 16), np.float32)})


@pytest.mark.parametrize(
    ("features", "override", "says"),
    [
        ("jumprelu", "jumprelu.target_l0=17", r"jumprelu\.target_l0=17.* is more than the 16 latents"),
        ("batch_topk", "batch_topk.threshold_rate=0", r"batch_topk\.threshold_rate=0 must"),
        ("sae", "features.k=17", r"features\.k=17 must lie between"),
        ("untrained_sae", "features.k=17", r"features\.k=17 must lie between"),
        ("untrained_sae", "sae.center=middle", r"sae\.center='middle' is none of"),
        ("sae", "features.expansion=0", r"features\.expansion=0 leaves no feature"),
        ("jumprelu", "jumprelu.bandwidth=much", r"jumprelu\.bandwidth='much' must be a number"),
        ("jumprelu", "+jumprelu.treshold=3", r"jumprelu\.treshold is no setting of a jumprelu_sae: correct"),
        ("sae", "+sae.kk=3", r"sae\.kk is no setting of a topk_sae: correct"),
    ],
)
def test_errors_name_options_that_exist(features: str, override: str, says: str) -> None:
    kind, view = composed(features, "features.k=3", override), View()
    make: Any = partial(kind.untrained, view, False) if isinstance(kind, SAE) else None  # type: ignore[arg-type]
    if isinstance(kind, UntrainedSAE):
        make = partial(kind.fit, view, False, 0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"^{says}"):
        make()


def test_settings_that_stand_in_the_set_itself_are_named_there() -> None:
    cfg = {"_target_": "mmmono.pipeline.feature_sets.SAE", "settings": {"expansion": 1, "frozen": "both"}}
    kind = make_spec("mine", OmegaConf.create(cfg))
    assert isinstance(kind, SAE)
    with pytest.raises(ConfigError, match=r"^features\.sets\.mine\.settings\.frozen='both' is none of"):
        kind.untrained(View(), False)  # type: ignore[arg-type]


@pytest.mark.parametrize("features", TRAINED)
def test_sizes_that_make_no_dictionary_are_refused_before_features_are_extracted(features: str) -> None:
    """Without a pair of features: a check knows their width alone, and takes neither memory nor random numbers."""
    state = torch.get_rng_state()
    (spec,) = (make_spec(features, node) for node in configured(features).features.sets.values())
    spec.check(lambda: 100_000, normalize=True)  # 40 GB of weights
    spec.check(lambda: None, normalize=True)
    assert torch.equal(torch.get_rng_state(), state)
    override = "ncl.expansion=0.001" if features == "ncl" else "features.expansion=0.001"
    (wrong,) = (make_spec(features, node) for node in configured(features, override).features.sets.values())
    with pytest.raises(ConfigError, match=r"expansion=0.001 leaves no feature"):
        wrong.check(lambda: 64, normalize=True)


class Scaled(TopKSAE):
    """Reads its weights when it is made, as classes of other people may."""

    architecture = "scaled"

    def __init__(self, dim: int, num_features: int | None = None, **shared: Any) -> None:
        super().__init__(dim, num_features, **shared)
        self.scale, self.largest = float(self.W_enc.detach().norm()), self.b_pre.detach().numpy().max()


def test_a_class_that_reads_its_weights_passes_the_check_of_sizes() -> None:
    state = torch.get_rng_state()
    settings = {"k": 4, "expansion": 1, "lr": 1e-3, "auxk": 0, "auxk_coefficient": 0.03}
    SAE(settings, "scaled").check(lambda: 8, normalize=True)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ConfigError, match="k=9"):
        SAE({**settings, "k": 9}, "scaled").check(lambda: 8, normalize=True)


def test_more_active_latents_than_there_are_end_a_command_before_it_extracts(command: Command, tmp_path: Path) -> None:
    shard = tmp_path / "no-image-is-read.tar"
    shard.write_bytes(b"no archive")
    run = command(
        "train", f"dataset.shards={shard}", "dataset=webdataset", "model=open_clip", "model.architecture=RN50",
        "model.pretrained=null", "features=sae", "features.k=2000", f"artifacts={tmp_path / 'artifacts'}",
    )  # fmt: skip
    assert run.status == 1
    assert "features.k=2000" in run.err
    assert not list(tmp_path.glob("artifacts/features/*"))
