"""`training.together=true` on the command line: the same dictionaries, at the same addresses, in one pass."""

import os
import re
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tests.pipeline.conftest import Command, run_entrypoint
from tests.pipeline.test_processes import ONE, SHORT, TWO, assert_same, dictionary, finish, session, start, wait_for

FEW = (
    "dataset=synthetic", "dataset.pairs=3000", "dataset.dim=16", "features.k=2", "features.expansion=4", "trainer=cpu",
    "trainer.max_steps=200", "trainer.min_steps=0", "trainer.val_check_interval=20", "training.checkpoint_every=20",
    "training.snapshot_every=100", "training.batch_size=128", "training.pool_rows=1024", "training.patience=2",
)  # fmt: skip
KINDS = ("sae", "batch_topk", "matryoshka", "ncl")
TOGETHER = (f"features=[{','.join(KINDS)}]", "training.together=true")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One kind trained after the other."""
    root = tmp_path_factory.mktemp("alone")
    assert run_entrypoint("train", *FEW, TOGETHER[0], f"artifacts={root}") == 0
    return root


def assert_equal(root: Path, alone: Path) -> None:
    """Every kind has the same address, weights, snapshots, curves and end."""
    for kind in KINDS:
        one, other = dictionary(root, kind), dictionary(alone, kind)
        assert one.name == other.name
        weights = [f.relative_to(other) for f in other.rglob("*.safetensors")]
        assert len(weights) > 1
        for file in weights:
            mine, theirs = load_file(one / file), load_file(other / file)
            assert all(torch.equal(mine[name], value) for name, value in theirs.items()), (kind, file)
        for table in ("history.parquet", "end.parquet"):
            pd.testing.assert_frame_equal(pd.read_parquet(one / table), pd.read_parquet(other / table))


@pytest.mark.slow
def test_each_dictionary_is_what_it_is_alone(command: Command, alone: Path, tmp_path: Path) -> None:
    ended = [pd.read_parquet(dictionary(alone, kind) / "end.parquet").iloc[0] for kind in KINDS]
    assert len({end["steps"] for end in ended}) > 1, "they should end at different times, or less is tested"
    (tmp_path / "dictionaries").mkdir()
    (tmp_path / "dictionaries" / dictionary(alone, "matryoshka").name).symlink_to(dictionary(alone, "matryoshka"))
    run = command("train", *FEW, *TOGETHER, f"artifacts={tmp_path}")
    assert run.status == 0, run.err
    said = dict(re.findall(r"(\w+): (trained|reused)", run.out))
    assert said == {"sae": "trained", "batch_topk": "trained", "matryoshka": "reused", "ncl": "trained"}
    assert_equal(tmp_path, alone)
    run = command("train", *FEW, "features=batch_topk", f"artifacts={tmp_path}")
    assert "batch_topk: reused" in run.out


@pytest.mark.slow
def test_a_killed_pass_goes_on_and_so_does_each_alone(command: Command, alone: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()  # sums of another number of threads have other last bits
    process = start(*FEW, *TOGETHER, f"artifacts={tmp_path}", log=tmp_path / "log", threads=threads)
    checkpoints = tmp_path / "dictionaries"
    wait_for(lambda: len(list(checkpoints.glob("*.partial/checkpoints/last.ckpt"))) == len(KINDS), process)
    os.kill(process.pid, signal.SIGKILL)
    finish(process)
    left = len(list(checkpoints.glob("*.partial")))
    assert left > 1
    run = command("train", *FEW, "features=sae", f"artifacts={tmp_path}")
    assert run.status == 0, run.err
    run = command("train", *FEW, *TOGETHER, f"artifacts={tmp_path}")
    assert run.status == 0, run.err
    assert_equal(tmp_path, alone)


@pytest.mark.slow
def test_two_processes_train_together(tmp_path: Path) -> None:
    kinds = ("sae", "ncl")
    features = f"features=[{','.join(kinds)}]"
    assert run_entrypoint("train", *SHORT, *ONE, features, f"artifacts={tmp_path / 'one'}") == 0
    root, log = tmp_path / "two", tmp_path / "log"
    process = start(*SHORT, *TWO, features, "training.together=true", f"artifacts={root}", log=log)
    assert finish(process) == 0, log.read_text()
    for kind in kinds:
        assert_same(tmp_path / "one", root, kind)
    assert not session(process)


@pytest.mark.slow
def test_an_interrupt_and_a_time_limit_end_all_and_keep_what_there_is(command: Command, tmp_path: Path) -> None:
    process = start(*FEW, *TOGETHER, f"artifacts={tmp_path}", log=tmp_path / "log")
    wait_for(lambda: list(tmp_path.glob("dictionaries/*.partial/checkpoints/last.ckpt")), process)
    os.kill(process.pid, signal.SIGINT)
    assert finish(process, 60) == 130
    assert (tmp_path / "log").read_text().splitlines()[-1] == "interrupted: run the same command again to go on"
    run = command("train", *FEW, *TOGETHER, f"artifacts={tmp_path}/cut", "trainer.max_time={seconds:0.001}")
    assert run.status == 1
    assert re.search(r"error: training \w+ was cut short after 1 steps", run.err)
    assert len(list((tmp_path / "cut").glob("dictionaries/*.partial/checkpoints/last.ckpt"))) == len(KINDS)


def test_what_diverges_does_not_end_the_others(command: Command, tmp_path: Path) -> None:
    few = (*FEW, "trainer.max_steps=20", "features=[sae,ncl]", f"artifacts={tmp_path}")
    run = command("train", *few, "training.together=true", "sae.lr=1e30", "trainer.gradient_clip_val=null")
    assert run.status == 1
    assert run.err == "error: training sae diverged: its weights or codes are not finite; lower sae.lr=1e+30\n"
    assert [folder.name[:3] for folder in tmp_path.glob("dictionaries/*") if (folder / "recipe.json").exists()] == [
        "ncl"
    ]


def test_wandb_is_refused_before_any_work(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the wandb extra brings W&B")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = command("train", *FEW, *TOGETHER, f"artifacts={tmp_path}", "logger=wandb")
    assert run.status == 1
    assert "training.together=true with logger=wandb" in run.err
    assert not (tmp_path / "features").exists()
