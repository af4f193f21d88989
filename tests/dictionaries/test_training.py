"""Training through Lightning: the order of a step, the stopping rule, resuming."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from mmmono.core.errors import DictionaryError
from mmmono.dictionaries import (
    DictionaryModule,
    MetricHistory,
    NCLHead,
    NCLModule,
    PairedFeatures,
    SAEModule,
    SparseAutoencoder,
    TopKSAE,
    TrainingPlateau,
)
from mmmono.dictionaries.base import dictionary_class
from mmmono.features import MODALITIES, FeatureStore, FeatureView
from mmmono.modality import modality_dominance_score


@pytest.fixture
def data(tmp_path: Path) -> PairedFeatures:
    return made_data(tmp_path)


def made_data(root: Path) -> PairedFeatures:
    """1,024 pairs that share sparse concepts, apart by a constant gap."""
    rng = np.random.default_rng(0)
    atoms = rng.standard_normal((24, 12))
    codes = rng.random((1024, 24)) * (rng.random((1024, 24)) < 0.15)
    for folder, gap in (("img_emb", 1.0), ("text_emb", -1.0)):
        (root / folder).mkdir()
        values = codes @ atoms + 0.05 * rng.standard_normal((1024, 12)) + gap * np.eye(12)[0]
        np.save(root / folder / f"{folder}_0.npy", values.astype(np.float32))
    return reopened(root)


def reopened(root: Path) -> PairedFeatures:
    """What `made_data` made."""
    store = FeatureStore(root)
    return PairedFeatures(FeatureView(store, np.arange(768)), FeatureView(store, np.arange(768, 1024)), batch_size=128)


def sae_module(**settings: Any) -> SAEModule:
    torch.manual_seed(0)
    return SAEModule(TopKSAE(12, 24, 4), lr=3e-3, warmup_steps=5, dead_after=768, **settings)


def kind_module(architecture: str, **settings: Any) -> Callable[[], SAEModule]:
    """Module of another kind of sparse autoencoder; its name is the test's."""

    def make() -> SAEModule:
        torch.manual_seed(0)
        sae = dictionary_class(architecture)(12, 24, **settings)  # type: ignore[call-arg]
        assert isinstance(sae, SparseAutoencoder)
        return SAEModule(sae, auxk=4, lr=3e-3, warmup_steps=5, dead_after=256, penalty_warmup_steps=20)

    make.__name__ = architecture
    return make


FAMILY = [
    kind_module("batch_topk_sae", k=4),
    kind_module("matryoshka_sae", k=4, levels=[0.25, 0.5, 1]),
    kind_module("jumprelu_sae", target_l0=4),
    kind_module("gated_sae"),
]


def ncl_module() -> NCLModule:
    torch.manual_seed(0)
    return NCLModule(NCLHead(12, 16), input_noise=0.5, lr=3e-3, warmup_steps=5)


def trainer(folder: Path, *callbacks: Callback, steps: int = 40, **settings: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        val_check_interval=10,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        gradient_clip_val=1.0,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        default_root_dir=folder,
        **{"logger": False, **settings},
    )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_is_logged_at_a_step_is_of_that_step(tmp_path: Path, data: PairedFeatures, accumulate: int) -> None:
    """Also if epochs, here of 6 batches, end between the steps that are logged."""
    losses: dict[int, float] = {}

    class Losses(Callback):
        def on_train_batch_end(
            self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            # Lightning divides the loss, and the first batches of the next step have this one's number.
            losses.setdefault(trainer.global_step - 1, float(outputs["loss"]) * accumulate)

    made, logger = sae_module(), CSVLogger(tmp_path)
    run = trainer(tmp_path, Losses(), log_every_n_steps=4, accumulate_grad_batches=accumulate, logger=logger)
    run.fit(made, data)
    logged = pd.read_csv(Path(logger.log_dir) / "metrics.csv").dropna(subset="train/loss")
    assert logged["step"].tolist() == list(range(3, 40, 4))
    assert logged["train/loss"].tolist() == pytest.approx([losses[step] for step in logged["step"]])


class Order(Callback):
    """Looks at the decoder and its gradient at the moments that matter."""

    def __init__(self) -> None:
        self.along: list[float] = []
        self.length_error: list[float] = []
        self.clipped: list[float] = []

    def on_before_zero_grad(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        sae = pl_module.dictionary
        if sae.W_dec.grad is None:
            return
        norm = torch.stack([p.grad.norm() for p in sae.parameters()]).norm()
        self.clipped.append(norm.item())

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        sae = pl_module.dictionary
        self.length_error.append((sae.W_dec.norm(dim=1) - 1).abs().max().item())


def test_a_step_projects_then_clips_then_renormalizes(tmp_path: Path, data: PairedFeatures) -> None:
    module, order = sae_module(), Order()
    inner = module.optimizers

    class Watch(torch.optim.Adam):
        def step(self, closure: Any = None) -> Any:
            loss = closure() if closure is not None else None
            sae = module.dictionary
            order.along.append((sae.W_dec.grad * sae.W_dec).sum(1).abs().max().item())
            order.clipped.append(torch.stack([p.grad.norm() for p in sae.parameters()]).norm().item())
            super().step()
            return loss

    module.configure_optimizers = lambda: Watch(module.parameters(), lr=3e-3)  # type: ignore[method-assign]
    trainer(tmp_path, order, steps=10).fit(module, data)
    assert inner is not None
    assert max(order.along) < 1e-5
    assert max(order.clipped) < 1 + 1e-4
    assert max(order.length_error) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "stop_at"), [(make, at) for make in (sae_module, ncl_module) for at in (6, 15)] + [(m, 15) for m in FAMILY]
)
def test_a_resumed_run_is_bit_equal(tmp_path: Path, data: PairedFeatures, make: Any, stop_at: int) -> None:
    """Stopped at the end of an epoch (6 steps) or in the middle of one."""

    class Stop(Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
            if trainer.global_step == stop_at:
                raise InterruptedError

    def checkpoint(folder: str) -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path / folder, filename="last", every_n_train_steps=3, enable_version_counter=False)

    whole, whole_history = make(), MetricHistory()
    trainer(tmp_path, checkpoint("whole"), whole_history).fit(whole, data)
    with pytest.raises(InterruptedError):
        trainer(tmp_path, checkpoint("cut"), MetricHistory(), Stop()).fit(make(), data)
    resumed, history = make(), MetricHistory()
    run = trainer(tmp_path, checkpoint("cut"), history)
    run.fit(resumed, data, ckpt_path=tmp_path / "cut" / "last.ckpt", weights_only=True)
    assert run.global_step == 40
    for (name, expected), got in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(expected, got), name
    assert history.frame().equals(whole_history.frame())


@pytest.mark.slow
def test_history_has_the_curves_of_figures_11_and_12(tmp_path: Path, data: PairedFeatures) -> None:
    history = MetricHistory()
    module = sae_module()
    trainer(tmp_path, history).fit(module, data)
    frame = history.frame()
    assert frame["step"].tolist() == [10, 20, 30, 40]
    assert frame["pairs"].tolist() == [1280, 2560, 3840, 5120]
    for modality in ("image", "text"):
        codes = module.dictionary.encode(
            torch.nn.functional.normalize(data.val.read(modality, 0, 256), dim=1),
            modality,  # type: ignore[arg-type]
        )
        assert frame[f"val/{modality}/active"].iloc[-1] == int((codes > 0).any(0).sum())
        assert frame[f"val/{modality}/l0"].iloc[-1] == pytest.approx((codes > 0).sum(1).float().mean().item())
        assert frame[f"val/{modality}/fvu"].iloc[-1] < frame[f"val/{modality}/fvu"].iloc[0]


def test_a_head_trains_on_embeddings_of_length_zero(tmp_path: Path, data: PairedFeatures) -> None:
    """Noise has the length of the embedding, so there is none, and no division by zero."""
    texts = tmp_path / "text_emb" / "text_emb_0.npy"
    values = np.load(texts)
    values[5] = 0
    np.save(texts, values)
    store = FeatureStore(tmp_path)
    views = FeatureView(store, np.arange(768)), FeatureView(store, np.arange(768, 1024))
    module = ncl_module()
    trainer(tmp_path, steps=10).fit(module, PairedFeatures(*views, batch_size=128, normalize=False))
    assert all(bool(parameter.isfinite().all()) for parameter in module.parameters())


def test_a_head_is_validated_on_some_of_the_pairs(tmp_path: Path, data: PairedFeatures) -> None:
    history = MetricHistory()
    trainer(tmp_path, history, steps=10, limit_val_batches=1).fit(ncl_module(), data)
    first = MetricHistory()
    data.val = FeatureView(data.val.store, np.arange(768, 768 + 128))
    trainer(tmp_path, first, steps=10).fit(ncl_module(), data)
    assert history.frame().equals(first.frame())


@pytest.mark.slow
def test_ncl_learns_to_retrieve(tmp_path: Path, data: PairedFeatures) -> None:
    history = MetricHistory()
    trainer(tmp_path, history, steps=150).fit(ncl_module(), data)
    frame = history.frame()
    assert frame["val/loss"].iloc[-1] < frame["val/loss"].iloc[0]
    assert frame["val/text_to_image_recall@10"].iloc[-1] > 5 * 10 / 256


@pytest.mark.slow
@pytest.mark.parametrize("patience", [2, 3])
def test_training_stops_when_active_dimensions_no_longer_fall(
    tmp_path: Path, data: PairedFeatures, patience: int
) -> None:
    class Falling(DictionaryModule):
        counts = (24, 20, 15, 15, 15, 15, 15, 15, 15)

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return self.dictionary(batch.image, batch.text).loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            pass

        def on_validation_epoch_end(self) -> None:
            count = self.counts[self.global_step // 10 - 1]
            self.log_validation(**{"image/active": count, "text/active": 5})

    run = trainer(tmp_path, TrainingPlateau(patience=patience, min_fall=0.05), steps=90)
    run.fit(Falling(TopKSAE(12, 24, 4)), data)
    assert run.global_step == 30 + 10 * patience


def test_dead_latents_are_counted_in_pairs_and_by_modality() -> None:
    module = sae_module()
    fired = torch.zeros(2, 24, dtype=torch.bool)
    fired[0, :4] = True
    fired[1, 4:8] = True
    for _ in range(6):
        module.record_firing(fired, 128)
    assert module.dead.tolist() == [False] * 8 + [True] * 16
    assert module.since_fired[0, 4].item() == module.since_fired[1, 0].item() == 768
    assert module.pairs_seen == 768


@pytest.mark.slow
def test_auxk_revives_dead_latents(tmp_path: Path, data: PairedFeatures) -> None:
    """Latents too faint to win come alive with AuxK, and do not without."""
    active = {}
    for auxk in (0, 8):
        torch.manual_seed(0)
        sae = TopKSAE(12, 24, 2)
        module = SAEModule(sae, auxk=auxk, auxk_coefficient=1.0, lr=1e-3, dead_after=768)
        with torch.no_grad():
            module.dictionary.W_enc[12:] *= 1e-3  # too faint to be among the k strongest
        history = MetricHistory()
        trainer(tmp_path, history, steps=200).fit(module, data)
        active[auxk] = history.frame()["val/image/active"].iloc[-1]
    assert active[8] >= active[0] + 2, active


def test_features_of_another_width_are_refused(tmp_path: Path, data: PairedFeatures) -> None:
    with pytest.raises(DictionaryError, match="width 9, the store has 12"):
        trainer(tmp_path).fit(SAEModule(TopKSAE(9, 18, 3)), data)


@pytest.mark.slow
def test_a_pre_bias_for_each_modality_moves_mds(tmp_path: Path, data: PairedFeatures) -> None:
    """With one b_pre the gap stays in the codes, where some latents fire on one modality alone; with two it does not."""
    spread = {}
    for center in ("pooled", "per_modality"):
        torch.manual_seed(0)
        sae = TopKSAE(12, 24, 4, center=center)  # type: ignore[arg-type]
        z = {m: torch.nn.functional.normalize(data.train.read(m, 0, 768), dim=1) for m in MODALITIES}
        sae.initialize_pre_bias(z["image"].mean(0), z["text"].mean(0))
        trainer(tmp_path, steps=150).fit(SAEModule(sae, lr=3e-3), data)
        scores = modality_dominance_score(*(sae.encode(z[m], m).detach() for m in MODALITIES))
        spread[center] = scores.std().item()
    assert spread["pooled"] > 2 * spread["per_modality"]
