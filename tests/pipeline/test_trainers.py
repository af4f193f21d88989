"""Every `trainer=` option and precision, settings that cannot work, and several processes, as their users meet them."""

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file

from mmmono.core.errors import ConfigError, DictionaryError
from mmmono.dictionaries import fraction_of_variance_unexplained
from mmmono.features import MODALITIES, FeatureStore, FeatureView
from mmmono.pipeline.feature_sets import NCL, SAE
from mmmono.pipeline.fitting import Training
from mmmono.pipeline.running import CONF
from mmmono.pipeline.specs import Trained
from mmmono.pipeline.trainer_checks import CHECKED
from mmmono.pipeline.trainer_settings import read_trainer
from mmmono.pipeline.training import check_trainer
from mmmono.pipeline.training_settings import TrainingSettings
from mmmono.pipeline.typed import read_settings
from tests.pipeline.conftest import Command

DATA = ("dataset=synthetic", "dataset.pairs=700", "dataset.dim=16", "features.k=3", "training.snapshot_every=null")
SHORT = (*DATA, "trainer.min_steps=0", "trainer.val_check_interval=10", "trainer.max_steps=20")
PRECISIONS = ("32-true", "64-true", "bf16-true", "bf16-mixed", "16-mixed")
DTYPES = {"64-true": torch.float64, "bf16-true": torch.bfloat16}
SAE_SETTINGS: dict[str, Any] = {
    "k": 3, "expansion": 2, "pre_bias": True, "center": "per_modality", "lr": 3e-3, "auxk": 4, "auxk_coefficient": 0.1
}  # fmt: skip
NCL_SETTINGS = {
    "expansion": 1, "layer_norm": True, "rep_relu": False, "similarity": "cosine", "input_noise": 0.5, "lr": 3e-3
}  # fmt: skip


def composed(*overrides: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> FeatureView:
    """512 pairs that share sparse concepts."""
    folder, rng = tmp_path_factory.mktemp("store"), np.random.default_rng(0)
    codes, atoms = rng.random((512, 24)) * (rng.random((512, 24)) < 0.15), rng.standard_normal((24, 12))
    for name, gap in (("img_emb", 1.0), ("text_emb", -1.0)):
        (folder / name).mkdir()
        values = codes @ atoms + 0.05 * rng.standard_normal((512, 12)) + gap * np.eye(12)[0]
        np.save(folder / name / f"{name}_0.npy", values.astype(np.float16))
    return FeatureView(FeatureStore(folder))


def fit(
    view: FeatureView, folder: Path, kind: Any, *overrides: str, name: str = "sae", dead_after_epochs: float = 0.3
) -> Any:
    cfg = composed("trainer.min_steps=0", "trainer.log_every_n_steps=2", *overrides)
    settings = read_settings(cfg, "training", TrainingSettings)
    settings = replace(settings, batch_size=64, dead_after_epochs=dead_after_epochs)
    training = Training(name, kind, view, view, True, 0, settings, check_trainer(cfg), folder)
    return training.fit(None, Metrics(folder / "log"))


class Metrics:
    """A logger that keeps what it is given."""

    def __new__(cls, folder: Path) -> Any:
        from lightning.pytorch.loggers import CSVLogger

        class Kept(CSVLogger):
            def __init__(self, folder: str) -> None:
                super().__init__(folder)
                self.rows: list[dict[str, float]] = []

            def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
                self.rows.append(dict(metrics))

        return Kept(str(folder))


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("option", ["auto", "cpu", "gpu", "ddp"])
def test_every_option_trains_in_every_precision(view: FeatureView, tmp_path: Path, option: str, precision: str) -> None:
    overrides = (
        f"trainer={option}", "trainer.accelerator=cpu", "trainer.devices=1", f"trainer.precision={precision}",
        "trainer.max_steps=6", "trainer.val_check_interval=3",
    )  # fmt: skip
    for name, kind in (("sae", SAE(SAE_SETTINGS)), ("ncl", NCL(NCL_SETTINGS))):
        torch.manual_seed(0)
        before = kind.module(view, True, {}).dictionary.state_dict()
        module, history = fit(view, tmp_path / name, kind, *overrides, name=name)
        after = module.dictionary.state_dict()
        assert {value.dtype for value in after.values()} == {DTYPES.get(precision, torch.float32)}
        moved = [key for key in before if not torch.equal(before[key].to(after[key].dtype), after[key])]
        assert moved if precision == "bf16-true" else moved == list(before)  # too coarse for some steps of warm-up
        assert np.isfinite(history.frame().to_numpy()).all()
        assert np.isfinite([value for row in module.logger.rows for value in row.values()]).all()
        if name == "sae":
            coarse = 1e-2 if precision == "bf16-true" else 1e-6
            torch.testing.assert_close(
                module.dictionary.W_dec.norm(dim=1).double(), torch.ones(24).double(), atol=coarse, rtol=0
            )


@pytest.mark.parametrize("kind", [SAE(SAE_SETTINGS), NCL(NCL_SETTINGS)])
def test_the_last_metrics_are_those_of_the_final_weights(view: FeatureView, tmp_path: Path, kind: Trained) -> None:
    """Also if training ends some steps after a validation; and if it ended before and has only to be published."""
    overrides = ("trainer=cpu", "trainer.max_steps=5", "trainer.val_check_interval=3", "training.checkpoint_every=5")
    module, history = fit(view, tmp_path, kind, *overrides)
    assert history.frame()["step"].tolist() == [3, 5]
    assert history.ended_by == "max_steps"
    for modality in MODALITIES:
        embeddings = torch.nn.functional.normalize(view.read(modality, 0, len(view)).float(), dim=1)
        codes = module.dictionary.encode(embeddings, modality)
        assert history.frame()[f"val/{modality}/l0"].iloc[-1] == pytest.approx(
            float((codes != 0).sum(1).float().mean())
        )
        if module.dictionary.decodes:
            fvu = fraction_of_variance_unexplained(embeddings, module.dictionary.decode(codes, modality))
            assert history.frame()[f"val/{modality}/fvu"].iloc[-1] == pytest.approx(float(fvu))
    again = fit(view, tmp_path, kind, *overrides, "trainer.max_time=00:01:00:00")[1]
    assert again.frame().equals(history.frame())


def test_a_feature_that_has_just_fired_is_not_dead(view: FeatureView, tmp_path: Path) -> None:
    """However few passes make a feature dead: here a fraction of a pair."""
    overrides = ("trainer=cpu", "trainer.max_steps=4", "trainer.val_check_interval=4")
    module, _ = fit(view, tmp_path, SAE(SAE_SETTINGS), *overrides, dead_after_epochs=1e-6)
    assert torch.equal(module.dead, (module.since_fired > 0).all(0))
    assert not module.dead.all()


@pytest.mark.slow
def test_fvu_in_mixed_precision_is_that_of_float32(view: FeatureView, tmp_path: Path) -> None:
    fvu = {}
    for precision in ("32-true", "64-true", "bf16-mixed", "16-mixed"):
        settings = {**SAE_SETTINGS, "auxk": 0}
        overrides = (
            f"trainer.precision={precision}",
            "trainer=cpu",
            "trainer.max_steps=150",
            "trainer.val_check_interval=150",
        )
        history = fit(view, tmp_path / precision, SAE(settings), *overrides)[1].frame()
        fvu[precision] = history[["val/image/fvu", "val/text/fvu"]].iloc[-1].mean()
    assert fvu["32-true"] < 0.5
    for precision, value in fvu.items():
        assert value == pytest.approx(fvu["32-true"], rel=0.02), precision


def test_a_step_with_infinite_gradients_changes_nothing(view: FeatureView, tmp_path: Path) -> None:
    """The scaler's first factor is far too large for these; it halves until gradients fit, and then training goes on."""
    kind = SAE({**SAE_SETTINGS, "auxk": 0})
    weights = []

    class Overflowing(SAE):
        def module(self, *args: Any) -> Any:
            module = kind.module(*args)
            backward = module.backward
            module.backward = lambda loss: backward(loss * 1e35)  # beyond float32, whatever it is scaled by

            def watch(*_: Any) -> None:
                weights.append({k: v.clone() for k, v in module.dictionary.state_dict().items()})

            module.on_train_batch_end = watch
            return module

    overrides = ("trainer=cpu", "trainer.precision=16-mixed", "trainer.max_steps=3", "trainer.val_check_interval=3")
    torch.manual_seed(0)
    before = kind.module(view, True, {}).dictionary.state_dict()
    module, history = fit(view, tmp_path, Overflowing(SAE_SETTINGS), *overrides)
    for key, value in before.items():
        torch.testing.assert_close(weights[0][key], value, atol=1e-6, rtol=0)
        assert weights[-1][key].isfinite().all()
    assert module.trainer.precision_plugin.scaler.get_scale() < 2**16
    assert np.isfinite(history.frame().to_numpy()).all()


@pytest.mark.parametrize(("step", "every"), [(2, 2), (3, 2)], ids=["a validation", "the last validation"])
@pytest.mark.parametrize("factor", [float("nan"), 1e38], ids=["NaN weights", "finite weights"])
def test_a_training_that_diverges_names_its_learning_rate(
    view: FeatureView, tmp_path: Path, step: int, every: int, factor: float
) -> None:
    class Diverging(SAE):
        def module(self, *args: Any) -> Any:
            module = super().module(*args)

            def watch(*_: Any) -> None:
                if module.global_step == step:
                    for weights in module.dictionary.parameters():
                        weights.data.mul_(factor)

            module.on_train_batch_end = watch
            return module

    overrides = ("trainer=cpu", f"trainer.max_steps={step}", f"trainer.val_check_interval={every}")
    with pytest.raises(DictionaryError, match=r"training sae diverged: .*; lower sae\.lr="):
        fit(view, tmp_path, Diverging(SAE_SETTINGS), *overrides)


def test_a_dictionary_that_is_worse_than_a_mean_is_told_by_whatever_trains_it(command: Command, tmp_path: Path) -> None:
    """Its weights are finite, so that the training ends as others do."""
    few = (
        "dataset=synthetic",
        "dataset.pairs=400",
        "features=sae",
        "features.k=2",
        "trainer=cpu",
        "trainer.max_steps=20",
    )
    short = (f"artifacts={tmp_path}", *few, "trainer.min_steps=0", "trainer.val_check_interval=10")
    told = re.compile(
        r"sae reconstructs worse than a mean would: FVU \S+ on images and \S+ on texts; lower sae\.lr=1000"
    )
    run = command("mds", *short, "sae.lr=1e3")
    assert run.status == 0, run.err
    assert told.search(" ".join(run.out.split()))
    run = command("mds", *short, "sae.lr=1e-2")
    assert run.status == 0, run.err
    assert "worse than a mean" not in run.out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.precision=16-true"], "trainer.precision=16-true cannot train"),
        (["trainer.precision=fp8"], "trainer.precision=fp8 is none of auto"),
        (["trainer.max_steps=-1"], "trainer.max_steps=-1 sets no end"),
        (["trainer.max_steps=0"], "trainer.max_steps=0 must be"),
        (["trainer.max_steps=many"], "trainer.max_steps=many must be"),
        (["trainer.max_epochs=0"], "trainer.max_epochs=0 must be"),
        (["trainer.max_time=soon"], "trainer.max_time=soon is no duration"),
        (["trainer.max_time='00:00:00:00'"], "leaves no time"),
        (["+trainer.limit_val_batches=0"], "trainer.limit_val_batches=0 leaves none"),
        (["+trainer.limit_train_batches=0.0"], "trainer.limit_train_batches=0.0 leaves none"),
        (["+trainer.accumulate_grad_batches=0"], "trainer.accumulate_grad_batches=0 must be a whole number"),
        (["+trainer.overfit_batches=2"], "trainer.overfit_batches would validate on training pairs"),
        (["+trainer.fast_dev_run=true"], "trainer.fast_dev_run makes no dictionary"),
        (["trainer.val_check_interval=0.25"], "trainer.val_check_interval=0.25 must be a whole number"),
        (["trainer.val_check_interval=0"], "trainer.val_check_interval=0 must be a whole number"),
        (["trainer.val_check_interval='00:00:01:00'"], "must be a whole number"),
        (["trainer.check_val_every_n_epoch=1", "trainer.val_check_interval=1.5"], "must be a share of an epoch"),
        (["trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val=-1 must be"),
        (["+trainer.gradient_clip_algorithm=sideways"], "trainer: `gradient_clip_algorithm` sideways is invalid"),
        (["+trainer.no_such=1"], "unexpected keyword argument 'no_such'"),
        (["trainer.accelerator=tpu"], "trainer.accelerator=tpu is none of"),
        (["trainer.devices=0", "trainer=cpu"], "trainer.devices=0 is no number of processes"),
        (["trainer.strategy=fsdp", "trainer=cpu"], "trainer.strategy=fsdp is not one for dictionaries"),
        (["trainer.num_nodes=2", "trainer=cpu"], "trainer.num_nodes=2 needs processes on each machine"),
        (["training.batch_size=-4"], "training.batch_size=-4 must be at least 1"),
        (["training.checkpoint_every=0"], "training.checkpoint_every=0 must be at least 1"),
        (["training.decay_fraction=1.5"], "training.decay_fraction=1.5 is a share"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_read(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_trainer(composed(*overrides))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "batches", "message"),
    [
        (
            ["trainer.max_steps=60", "trainer.val_check_interval=100"],
            6,
            "max_steps=60 ends before the first validation",
        ),
        (["+trainer.max_epochs=2", "trainer.val_check_interval=13"], 6, "max_epochs=2 ends before"),
        (["+trainer.limit_train_batches=0.1"], 6, "limit_train_batches=0.1 leaves no batch"),
        (["trainer.check_val_every_n_epoch=1"], 6, "trainer.val_check_interval=100 is more than the 6 batches"),
        (["trainer.check_val_every_n_epoch=1", "trainer.val_check_interval=0.1"], 6, "of 6 batches is none"),
    ],
)
def test_a_training_without_validation_is_refused(overrides: list[str], batches: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_trainer(composed(*overrides)).check_length(batches)


def test_what_ends_too_early_whatever_the_data_is_known_before() -> None:
    with pytest.raises(ConfigError, match="trainer.max_steps=60 ends before the first validation"):
        check_trainer(composed("trainer.max_steps=60"))
    check_trainer(composed("trainer.max_epochs=1", "trainer.max_steps=-1"))  # an epoch may be long
    check_trainer(composed("+trainer.limit_train_batches=0.1", "trainer.max_steps=100"))


def test_what_lengths_do_fit() -> None:
    for overrides in (
        ("trainer.max_steps=60", "+trainer.accumulate_grad_batches=2"),
        ("trainer.max_steps=-1", "trainer.max_epochs=20"),
        ("trainer.check_val_every_n_epoch=2", "trainer.val_check_interval=0.5", "trainer.max_steps=12"),
    ):
        check_trainer(composed(*overrides)).check_length(6)


def test_without_a_gpu() -> None:
    """On this machine `auto` is the CPU in float32, and what asks for a GPU is refused where a GPU is needed."""
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is a GPU")
    auto = check_trainer(composed())
    assert auto.here().accelerator == "cpu"
    assert (auto.precision, auto.tf32) == ("32-true", False)
    assert auto.recipe() == check_trainer(composed("trainer=cpu")).recipe()
    for option in ("gpu", "ddp"):
        settings = check_trainer(composed(f"trainer={option}"))
        assert settings.precision == "bf16-mixed"
        with pytest.raises(ConfigError, match="PyTorch sees no GPU here"):
            settings.here()


def test_on_a_gpu_auto_takes_bfloat16_and_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is chosen for a GPU, from what PyTorch says of it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for bfloat16, precision in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, b=bfloat16, **__: b)
        monkeypatch.setattr("mmmono.pipeline.trainer_settings._devices", lambda *_: [0])
        settings = read_trainer({"accelerator": "auto", "precision": None, "max_steps": 5, "val_check_interval": 1})
        assert (settings.here().accelerator, settings.precision, settings.tf32) == ("cuda", precision, True)


def test_a_large_sae_trains_in_bfloat16_on_a_cpu_that_has_units_for_it(
    view: FeatureView, monkeypatch: pytest.MonkeyPatch
) -> None:
    def precision(expansion: float, *overrides: str, architecture: str = "topk_sae") -> str:
        kind = SAE({"expansion": expansion, "k": 4}, architecture)
        return (
            check_trainer(composed("trainer.accelerator=cpu", *overrides))
            .suited_to(kind.bfloat16_weights(512))
            .precision
        )

    for units in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda units=units: units)
        assert precision(4) == ("bf16-mixed" if units else "32-true")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert precision(3) == "32-true", "a small one is no faster"
    assert precision(4, "trainer.precision=32-true") == "32-true", "what is asked for holds"
    assert precision(4, architecture="gated") == "32-true", "only TopK chooses among candidates in float32"


@pytest.mark.parametrize("option", ["gpu", "ddp"])
def test_a_gpu_that_is_not_there_is_one_line(command: Command, tmp_path: Path, option: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    run = command("train", f"trainer={option}", f"artifacts={tmp_path}", *DATA)
    assert run.status == 1
    assert run.err.startswith("error: trainer.accelerator=gpu, but PyTorch sees no GPU here")
    assert not (tmp_path / "features").exists()


@pytest.mark.slow
def test_a_training_cut_by_time_is_not_published_and_goes_on(command: Command, tmp_path: Path) -> None:
    arguments = (f"artifacts={tmp_path}", *SHORT, "features=sae")
    cut = command("train", *arguments, "+trainer.max_time='00:00:00:00.001'")
    assert cut.status == 1
    assert "is no duration" in cut.err
    cut = command("train", *arguments, "+trainer.max_time={seconds:0.001}")
    assert cut.status == 1
    assert "error: training sae was cut short after 1 steps by trainer.max_time" in cut.err
    assert not list((tmp_path / "dictionaries").glob("sae-*/recipe.json"))
    (checkpoint,) = (tmp_path / "dictionaries").glob("*.partial/checkpoints/last.ckpt")
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 1
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Be aware that when using `ckpt_path`")
        whole = command("train", *arguments, "training.checkpoint_every=7")  # which changes no result
    assert whole.status == 0, whole.err
    other = command("train", f"artifacts={tmp_path}/other", *SHORT, "features=sae")
    assert other.status == 0, other.err
    weights = [load_file(f) for f in sorted(tmp_path.rglob("sae-*/weights.safetensors")) if ".partial" not in str(f)]
    assert len(weights) == 2
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.slow
@pytest.mark.parametrize(("choices", "status"), [("999,3", 0), ("998,999", 1)])
def test_a_search_goes_on_after_a_trial_that_fails(command: Command, tmp_path: Path, choices: str, status: int) -> None:
    search = ("-m", "hparams_search=sae", "hydra.sweeper.n_trials=4", f"features.k=choice({choices})")
    run = command("train", *search, f"artifacts={tmp_path}", *[o for o in SHORT if not o.startswith("features.k")])
    failed = [int(job) for job in re.findall(r"error: job (\d): features.k=99\d must lie between", run.err)]
    assert run.out.count("trained") + run.out.count("reused") == 4 - len(failed)
    assert failed[0] < 3  # the search went on after it
    assert run.status == status
    if status:
        assert run.err.splitlines()[-1] == "error: every trial of the search has failed, as the lines above say"
    else:
        (found,) = (tmp_path / "runs").rglob("optimization_results.yaml")
        assert OmegaConf.load(found)["best_params"]["features.k"] == 3


@pytest.mark.parametrize("number", [-1, 0, 0.5, 1, 1.0, 2, 3.5, 100, 1e3, None])
@pytest.mark.parametrize("option", sorted(CHECKED))
def test_lightning_takes_every_number_that_passed_our_checks(option: str, number: float | None) -> None:
    """Therefore it is not asked about them."""
    try:
        settings = read_trainer(
            {"accelerator": "cpu", "max_steps": 100, "check_val_every_n_epoch": None, option: number}
        )
    except ConfigError:
        return
    if settings.options[option] is None or type(settings.options[option]) in CHECKED[option]:
        L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **settings.options)
