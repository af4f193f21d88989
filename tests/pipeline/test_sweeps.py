"""Multiruns, searches and their summary, on synthetic pairs."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from mmmono.dictionaries import Dictionary
from mmmono.dictionaries.pareto import pareto_front
from mmmono.features import FeatureStore, split_view
from mmmono.pipeline.running import CONF
from mmmono.pipeline.training import final_metric
from tests.pipeline.conftest import REPOSITORY, Command, newest
from tests.pipeline.test_entrypoints import only

DATA = ("dataset=synthetic", "dataset.pairs=800", "dataset.dim=16")
SHORT = (*DATA, "trainer.max_steps=20", "trainer.min_steps=0", "trainer.val_check_interval=10")
SHORT = (*SHORT, "training.snapshot_every=null")
GRID = ("-m", *SHORT, "features=sae", "features.k=1,2,4", "features.expansion=1,2")


def finished(root: Path) -> dict[Path, int]:
    folders = (root / "dictionaries").glob("sae-*[!k]")
    return {f: f.stat().st_mtime_ns for f in folders if (f / "recipe.json").exists() and f.suffix != ".partial"}


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_its_summary_is_right(command: Command, tmp_path: Path) -> None:
    arguments = (*GRID, f"artifacts={tmp_path}")
    script = REPOSITORY / "experiments" / "train.py"
    with (tmp_path / "log").open("wb") as log:
        sweep = subprocess.Popen([sys.executable, script, *arguments], stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + 120
        while len(finished(tmp_path)) < 2 and time.monotonic() < until and sweep.poll() is None:
            time.sleep(0.02)
        os.killpg(sweep.pid, signal.SIGKILL)
        sweep.wait()
    before = finished(tmp_path)
    assert 2 <= len(before) < 6, (tmp_path / "log").read_text()

    run = command("train", *arguments)
    assert run.status == 0, run.err
    assert (run.out.count("reused"), run.out.count("trained")) == (len(before), 6 - len(before))
    after = finished(tmp_path)
    assert len(after) == 6
    assert after.items() >= before.items()

    command("train", f"artifacts={tmp_path}", *SHORT, "features=ncl")
    run = command("sweep", f"artifacts={tmp_path}", *DATA)
    assert run.status == 0, run.err
    results = only(tmp_path / "results", "sweep-*")
    table = pd.read_parquet(results / "runs.parquet")
    sae = table[table.dictionary == "sae"]
    assert sorted(zip(sae.k, sae.expansion, strict=True)) == [(k, n) for k in (1, 2, 4) for n in (1, 2)]
    assert (table.dictionary == "ncl").sum() == 1
    assert (results / "sweep.png").stat().st_size > 10_000
    settings = pd.read_parquet(results / "settings.parquet").set_index(["artifact", "setting"]).value
    assert [settings[row.artifact, "k"] for row in sae.itertuples()] == [str(int(k)) for k in sae.k]
    assert set(settings[:, "trainer.max_steps"]) == {"20"}
    view = split_view(
        FeatureStore(only(tmp_path / "features", "synthetic-*")), "select"
    )  # by which settings are compared
    for row in sae.itertuples():
        dictionary = Dictionary.from_pretrained(tmp_path / "dictionaries" / row.artifact)
        fvu, l0 = [], []
        for modality in ("image", "text"):
            z = torch.nn.functional.normalize(view.read(modality, 0, len(view)).float(), dim=1)  # type: ignore[arg-type]
            codes = dictionary.encode(z, modality)  # type: ignore[arg-type]
            x, y = z.numpy(), dictionary.decode(codes, modality).detach().numpy()  # type: ignore[arg-type]
            fvu.append(((x - y) ** 2).sum() / ((x - x.mean(0)) ** 2).sum())
            l0.append((codes != 0).sum(1).float().mean())
        assert pytest.approx(np.mean(fvu), abs=1e-4) == row.fvu
        assert pytest.approx(np.mean(l0), abs=1e-4) == row.l0
        beaten = ((sae.fvu <= row.fvu) & (sae.l0 <= row.l0) & ((sae.fvu < row.fvu) | (sae.l0 < row.l0))).any()
        assert row.front == (not beaten)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_jobs_of_a_killed_parallel_sweep_end_with_it(tmp_path: Path, sign: signal.Signals) -> None:
    endless = ("trainer.max_steps=1000000", "training.patience=1000000", "training.checkpoint_every=10")
    arguments = ("-m", *SHORT, *endless, "features=sae", "features.k=1,2", f"artifacts={tmp_path}")
    joblib = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    script = REPOSITORY / "experiments" / "train.py"
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, script, *arguments, *joblib]
        sweep = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 300
        while len(list(tmp_path.glob("dictionaries/*.partial/checkpoints/last.ckpt"))) < 2:
            assert sweep.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < until, "never trained"
            time.sleep(0.05)
        sweep.send_signal(sign)
        assert sweep.wait(60) == -sign
        while workers := processes_of(sweep.pid):
            assert time.monotonic() < until, f"{workers} go on alone"
            time.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(sweep.pid, signal.SIGKILL)


def processes_of(session: int) -> list[str]:
    """Commands of a session that still run, other than those that only wait for its end."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes().decode()
            if os.getsid(int(folder.name)) == session and "popen_loky" in line:
                found.append(line)
    return found


@pytest.mark.slow
def test_a_search_finds_the_best_and_goes_on_where_it_was(command: Command, tmp_path: Path) -> None:
    arguments = (
        "-m",
        "hparams_search=sae",
        f"artifacts={tmp_path}",
        *SHORT,
        "features.k=2",
        "hydra.sweeper.n_trials=2",
    )
    assert command("train", *arguments).out.count("trained") == 2
    more = command("train", *arguments[:-1], "hydra.sweeper.n_trials=3")
    assert (more.out.count("reused"), more.out.count("trained")) == (2, 1)
    values = [final_metric(pd.read_parquet(folder / "history.parquet"), "fvu") for folder in finished(tmp_path)]
    found = max((tmp_path / "runs").rglob("optimization_results.yaml"), key=lambda file: file.stat().st_mtime)
    assert yaml.safe_load(found.read_text())["best_value"] == pytest.approx(min(values))


@pytest.mark.slow
def test_two_objectives(command: Command, tmp_path: Path) -> None:
    search = ("-m", "hparams_search=sae_pareto", "hydra.sweeper.n_trials=2", "hydra.sweeper.sampler.population_size=2")
    run = command("train", *search, f"artifacts={tmp_path}", *SHORT, "features.k=choice(1,2,4)")
    assert run.status == 0, run.err
    found = next((tmp_path / "runs").rglob("optimization_results.yaml"))
    assert all(len(solution["values"]) == 2 for solution in yaml.safe_load(found.read_text())["solutions"])


@pytest.mark.slow
def test_mono_beside_fvu(command: Command, tmp_path: Path) -> None:
    """From whatever interpretability results there are; embedder=clip needs no images."""
    root = f"artifacts={tmp_path}"
    grid = (root, *SHORT, "features=sae", "features.k=2,4")
    few = ("interpretability.m=3", "interpretability.over_training=false", "interpretability.deduplicate=false")
    run = command("interpretability", "-m", *grid, "embedder=clip", "mds.min_pairs=3", *few)
    assert run.status == 0, run.err
    recipe = json.loads((newest(tmp_path, "interpretability") / "recipe.json").read_text())
    earlier = tmp_path / "results" / "interpretability-earlier-0123456789"  # of a version with other names of settings
    earlier.mkdir()
    (earlier / "recipe.json").write_text(
        json.dumps({**recipe, "version": 1, "monosemanticity": recipe.pop("interpretability")})
    )
    assert command("sweep", root, *DATA).status == 0
    shutil.rmtree(earlier)
    table = pd.read_parquet(newest(tmp_path, "sweep") / "runs.parquet")
    averages = {}
    for folder in (tmp_path / "results").glob("interpretability-*[!k]"):
        table4 = pd.read_parquet(folder / "table4.parquet")
        digest = json.loads((folder / "recipe.json").read_text())["sets"][0]["dictionary"]
        averages[digest] = table4[table4["class"] == "all"].mono_corrected.mean()
    for row in table.itertuples():
        assert row.mono_corrected == pytest.approx(averages[row.artifact.rpartition("-")[2]])


@pytest.mark.slow
def test_jobs_that_fail_are_named_and_the_others_go_on(command: Command, tmp_path: Path) -> None:
    run = command("train", "-m", f"artifacts={tmp_path}", *SHORT, "features=sae", "features.k=900,2")
    assert run.status == 1
    assert "error: job 0: features.k=900 must lie between 1 and the 16 latents" in run.err
    assert run.out.count("trained") == 1


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("train", ["-m", "hydra/launcher=ray"], "hydra/launcher=ray is not installed: the extra 'sweep' brings joblib"),
        ("train", ["-m", "hydra/sweeper=ax"], "hydra/sweeper=ax is not installed"),
        ("train", ["-m", "hydra/sweeper=optuna", "sae.lr=interval(1e-4,1e-2)"], "has nothing to optimize"),
        ("mds", ["-m", "hydra/sweeper=optuna", "partition.n_sigma=interval(1,2)"], "has nothing to optimize"),
        (
            "train",
            ["objective=accuracy", "features.k=2"],
            "objective=accuracy is no metric of this dictionary: choose of",
        ),
        ("train", ["objective=fvu", "features=[sae,ncl]"], "is that of one dictionary, not of 2"),
        (
            "sweep",
            ["dataset.seed=9"],
            "nothing to compare, the features of synthetic (val) are not there",
        ),
    ],
)
def test_bad_input_is_one_clear_line(
    command: Command, tmp_path: Path, name: str, overrides: list[str], message: str
) -> None:
    data = DATA if name == "sweep" else SHORT
    run = command(name, *overrides, f"artifacts={tmp_path}", *data)
    assert run.status == 1
    assert message in [line for line in run.err.splitlines() if line.startswith("error:")][-1]


@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local", "submitit_slurm"])
def test_launchers_compose(launcher: str) -> None:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["-m", f"hydra/launcher={launcher}"][1:], return_hydra_config=True)
    assert launcher.split("_")[0] in cfg.hydra.launcher._target_.lower()


def test_pareto_front_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    costs = rng.integers(0, 5, (40, 2)).astype(float)
    costs[7] = np.nan
    front = pareto_front(costs)
    for row, on_front in zip(costs, front, strict=True):
        beaten = any((other <= row).all() and (other < row).any() for other in costs)
        assert on_front == (not beaten and not np.isnan(row).any())
