"""What `logger=` options record, read back from their files."""

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmmono.commands.wandb_workspace import dashboard, panel_groups
from mmmono.core.errors import ConfigError
from mmmono.pipeline.tracking import HISTORY_FILE, RUN_ID_FILE, WandB
from tests.pipeline.conftest import REPOSITORY, Command
from tests.pipeline.test_entrypoints import only, snapshot
from tests.pipeline.test_sweeps import SHORT
from tests.wandb_file import WandbRun, read_run

SETTINGS = (*SHORT, "features=[raw,sae]", "features.k=2", "mds.min_pairs=3")
SEPARATE = ("training.snapshot_every=10", "trainer.log_every_n_steps=5")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def runs(root: Path) -> dict[str, tuple[WandbRun, Path]]:
    """Runs by the name of the artifact they were for, with their folders of files."""
    found = {}
    for file in (root / "wandb").glob("offline-run-*/*.wandb"):
        until = time.monotonic() + 20  # W&B's own process writes, and may be behind
        while (run := read_run(file)).exit_code is None and time.monotonic() < until:
            time.sleep(0.1)
        (name,) = {name for name in run.outputs if not name.startswith("run-")}
        found[name] = (run, file.parent / "files")
    return found


@pytest.mark.slow
def test_wandb_records_training_and_analyses_with_their_lineage(
    command: Command, tmp_path: Path, offline: None
) -> None:
    root = f"artifacts={tmp_path}"
    run = command("mds", root, *SETTINGS, "trainer.log_every_n_steps=5", "logger=wandb", "logger.tags=[mine]")
    assert run.status == 0, run.err
    assert "upload it with 'wandb sync'" in run.out
    resampling = (
        "certainty.n_permutations=100",
        "certainty.n_bootstrap=20",
        "certainty.n_halves=2",
    )
    assert command("certainty", root, *SETTINGS, *resampling, "logger=wandb").status == 0  # the same dictionary

    store = only(tmp_path / "features", "synthetic-*").name
    sae = only(tmp_path / "dictionaries", "sae-*")
    mds, certainty = only(tmp_path / "results", "mds-*"), only(tmp_path / "results", "certainty-*")
    recorded = runs(tmp_path)
    assert set(recorded) == {sae.name, mds.name, certainty.name}

    training, _ = recorded[sae.name]
    assert (training.job_type, training.group, training.exit_code) == ("train", "unnamed-synthetic", 0)
    assert {"mine", "unnamed", "synthetic"} <= set(training.tags)
    history = pd.read_parquet(sae / HISTORY_FILE)
    curve = [row["val/image/fvu"] for row in training.history if "val/image/fvu" in row]
    assert curve == pytest.approx(history["val/image/fvu"].tolist())
    assert training.inputs == {store}
    assert training.artifacts[sae.name].type == "dictionary"
    files = {entry.path for entry in training.artifacts[sae.name].manifest.contents}
    assert {"weights.safetensors", "config.json", "recipe.json", "training_curves.png"} <= files

    analysis, files_of = recorded[mds.name]
    assert (analysis.job_type, analysis.exit_code) == ("mds", 0)
    partitions = {only(tmp_path / "partitions", f"{name}-*").name for name in ("raw", "sae")}
    assert analysis.inputs == {store, sae.name, *partitions}
    assert {analysis.artifacts[name].type for name in partitions} == {"partition"}
    assert analysis.artifacts[mds.name].type == "results"
    assert json.loads(analysis.artifacts[mds.name].metadata)["recipe"] == json.loads((mds / "recipe.json").read_text())
    assert analysis.config["dataset"]["pairs"] == 800
    assert analysis.config["sae"]["k"] == 2  # resolved
    assert "features.k=2" in analysis.config["overrides"]
    logged = analysis.logged
    assert (files_of / logged["mds/mds/path"]).read_bytes() == (mds / "mds.png").read_bytes()
    scores = pd.read_parquet(mds / "scores.parquet")
    assert sum(logged["mds/scores/mds/sae/values"]) == scores[scores.feature_set == "sae"].mds.notna().sum()
    table = json.loads((files_of / logged["mds/summary_table/path"]).read_text())
    summary = pd.read_parquet(mds / "summary.parquet")
    assert [row[table["columns"].index("std")] for row in table["data"]] == pytest.approx(summary["std"].tolist())
    assert analysis.summary["mds/summary/sae/std"] == pytest.approx(summary.set_index("feature_set")["std"]["sae"])
    # A store is not uploaded, only referred to.
    entries = {entry.path: entry.ref for entry in analysis.artifacts[store].manifest.contents}
    assert all(ref.startswith("file://") for path, ref in entries.items() if path.endswith(".npy"))
    assert any(path.endswith(".npy") for path in entries)

    assert recorded[certainty.name][0].inputs == {store, sae.name, *partitions}
    # Every panel of the dashboard's first section shows something that was recorded.
    first = panel_groups()[0]
    known = {*logged, *recorded[certainty.name][0].logged}
    for key in (*(k for k in first.figures if "ncl" not in k), *first.tables):
        assert f"{key}/_type" in known, key
    assert {key for bars in first.bars for key in bars if "ncl" not in key} <= analysis.summary.keys()
    curves = {key for section in panel_groups() for keys in section.curves for key in keys if "recall" not in key}
    assert curves <= set(training.logged)


@pytest.mark.slow
def test_wandb_shows_what_was_there_before_it(command: Command, tmp_path: Path, offline: None) -> None:
    """Trained with logger=csv; found by W&B, curves and all. Sheets become images in their table."""
    root = f"artifacts={tmp_path}"
    assert command("train", root, *SHORT, "features.k=2").status == 0
    assert not (tmp_path / "wandb").exists()
    assert command("train", root, *SHORT, "features.k=2", "logger=wandb").status == 0
    ((run, _),) = runs(tmp_path).values()
    history = pd.read_parquet(only(tmp_path / "dictionaries", "sae-*") / HISTORY_FILE)
    assert [row["val/text/fvu"] for row in run.history if "val/text/fvu" in row] == history["val/text/fvu"].tolist()
    assert run.job_type == "train"


def test_wandb_tables_have_images(command: Command, artifacts: Path, offline: None) -> None:
    before = set(runs(artifacts)) if (artifacts / "wandb").exists() else set()
    few = ("dataset.limit=400", "features=raw", "mds.min_pairs=3", "top_samples.m=4", "top_samples.shown=2")
    assert command("top_samples", f"artifacts={artifacts}", *few, "logger=wandb", "seed=3").status == 0
    (name,) = set(runs(artifacts)) - before
    run, _ = runs(artifacts)[name]
    # The images are in the artifact that W&B makes of a table; its preview has words only.
    (shown,) = (artifact for name, artifact in run.artifacts.items() if "sheets_table" in name)
    files = {entry.path: entry.local_path for entry in shown.manifest.contents}
    table = json.loads(Path(files["top_samples/sheets_table.table.json"]).read_text())
    sheets = [row[table["columns"].index("sheet")] for row in table["data"]]
    assert len(sheets) == 6
    assert all(sheet["_type"] == "image-file" and sheet["path"] in files for sheet in sheets)


def test_wandb_without_an_account_is_refused_before_any_work(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "nobody"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    run = command("mds", f"artifacts={tmp_path}", *SETTINGS, "logger=wandb")
    assert run.status == 1
    assert "error: logger=wandb cannot log in" in run.err
    assert "WANDB_MODE=offline" in run.err
    assert not (tmp_path / "features").exists()


def test_a_login_that_fails_without_a_word_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As W&B's client passes on an interrupted connection; it was an IndexError."""

    def fail() -> None:
        raise ConnectionResetError

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr("wandb.login", fail)
    with pytest.raises(ConfigError, match=r"cannot log in \(ConnectionResetError\): run 'wandb login'"):
        WandB("project").start(OmegaConf.create(), "mds")


@pytest.mark.slow
def test_tensorboard_records_the_same(command: Command, tmp_path: Path) -> None:
    run = command("mds", f"artifacts={tmp_path}", *SETTINGS, *SEPARATE, "logger=tensorboard")
    assert run.status == 0, run.err
    sae, mds = only(tmp_path / "dictionaries", "sae-*"), only(tmp_path / "results", "mds-*")
    training = EventAccumulator(str(tmp_path / "tensorboard" / sae.name / "training"))
    training.Reload()
    history = pd.read_parquet(sae / HISTORY_FILE)
    points = training.Scalars("val/image/fvu")
    assert [p.value for p in points] == pytest.approx(history["val/image/fvu"].tolist())
    assert training.Scalars("train/loss")
    results = EventAccumulator(str(tmp_path / "tensorboard" / mds.name / "contents"))
    results.Reload()
    tags = results.Tags()
    assert "mds/mds" in tags["images"]
    assert "mds/scores/mds/sae" in tags["histograms"]
    assert {"mds/summary_table", "mds/summary/text_summary"} & set(tags["tensors"])
    summary = pd.read_parquet(mds / "summary.parquet").set_index("feature_set")
    assert results.Scalars("mds/summary/raw/std")[0].value == pytest.approx(summary["std"]["raw"])
    before = snapshot(tmp_path / "results")
    assert command("mds", f"artifacts={tmp_path}", *SETTINGS, *SEPARATE, "logger=tensorboard").status == 0
    assert snapshot(tmp_path / "results") == before
    assert len(list((tmp_path / "tensorboard" / mds.name / "contents").iterdir())) == 1


@pytest.mark.slow
def test_csv_keeps_metrics_and_loads_no_tracker(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.startswith("mmmono.reporting.wandb")]:
        monkeypatch.delitem(sys.modules, module)
    run = command("mds", f"artifacts={tmp_path}", *SETTINGS, *SEPARATE)
    assert run.status == 0, run.err
    metrics = pd.read_csv(next(only(tmp_path / "dictionaries", "sae-*").rglob("metrics.csv")))
    assert metrics["val/image/fvu"].notna().sum() == 2
    assert not [name for name in sys.modules if name.startswith("mmmono.reporting.wandb")]
    assert not (tmp_path / "wandb").exists()


def test_dashboard(command: Command, tmp_path: Path, offline: None) -> None:
    run = command("dashboard", f"artifacts={tmp_path}")
    assert run.status == 0, run.err
    assert "not saved: W&B is offline" in run.out
    sections = dashboard("somebody", "mmmono").sections
    assert [section.name for section in sections] == [section.title for section in panel_groups()]
    assert all(section.panels for section in sections)
    entrypoints = {file.stem for file in (REPOSITORY / "experiments").glob("*.py")} | {"sae", "ncl"}
    keys = {key for section in panel_groups() for key in (*section.figures, *section.tables)}
    assert {key.partition("/")[0] for key in keys} <= entrypoints
    assert "leave logger=wandb as it is" in command("dashboard", f"artifacts={tmp_path}", "logger=csv").err


def test_a_kill_leaves_the_whole_id_of_a_run_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one would be that of no run, and end every later attempt."""

    def killed(self: Path, text: str, encoding: str) -> None:
        self.touch()
        raise KeyboardInterrupt

    made = SimpleNamespace(experiment=SimpleNamespace(id="abc"))
    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger", lambda **_: made)
    monkeypatch.setattr(WandB, "_options", lambda *_: {})
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            WandB("project").training_logger(tmp_path)
    assert not (tmp_path / RUN_ID_FILE).exists()
    assert WandB("project").training_logger(tmp_path) is made
    assert (tmp_path / RUN_ID_FILE).read_text() == "abc\n"
