"""Trainings with two processes, through the command line, undisturbed and killed."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from mmmono.core.errors import ConfigError, ProcessError
from mmmono.core.process_group import Place, place_of_this_process
from mmmono.pipeline.trainer_settings import read_trainer
from tests.pipeline.conftest import REPOSITORY, Command, run_entrypoint

DATA = ("dataset=synthetic", "dataset.pairs=700", "dataset.dim=16", "training.snapshot_every=null", "trainer=cpu")
DATA = (*DATA, "features.k=2", "features.expansion=16", "trainer.min_steps=0", "training.dead_after_epochs=0.05")
AUXK = ("sae.auxk=4", "sae.auxk_coefficient=0.5", "sae.center=per_modality")
SHORT = (*DATA, *AUXK, "trainer.max_steps=20", "trainer.val_check_interval=10", "training.checkpoint_every=20")
STEPS = 300  # of a training that is killed after 20
LONG = (*DATA, *AUXK, "features=sae", f"trainer.max_steps={STEPS}", f"trainer.val_check_interval={STEPS}")
LONG = (*LONG, "training.checkpoint_every=20")
TWO = ("trainer.devices=2", "trainer.strategy=ddp", "training.batch_size=64")
ONE = ("training.batch_size=128",)
ONE_PASS = ("features=[sae,batch_topk]", "training.together=true")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
KINDS = ("sae", "ncl", "batch_topk", "jumprelu")  # whose results two processes share
LIMIT = 600  # seconds for a command, on a machine that does other things too


def start(*arguments: str, log: Path, threads: int = 1, **more: str) -> "subprocess.Popen[bytes]":
    """Start a training; `more` are environment variables."""
    launcher = TORCHRUN if "torchrun" in arguments else ()
    script = str(REPOSITORY / "experiments" / "train.py")
    command = [sys.executable, *launcher, script, *(a for a in arguments if a != "torchrun")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": str(threads), **more}
    with log.open("wb") as file:
        return subprocess.Popen(
            command,
            stdout=file,
            stderr=file,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's & ignores it
        )


def finish(process: "subprocess.Popen[bytes]", limit: float = LIMIT) -> int:
    """Exit status; everything is killed and the test fails where it hangs."""
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"still running after {limit} s")


def wait_for(condition: Callable[[], object], process: "subprocess.Popen[bytes]", limit: float = LIMIT) -> None:
    until = time.monotonic() + limit
    while not condition():
        assert process.poll() is None, "ended before"
        assert time.monotonic() < until, "never came"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_training(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"train.py" in command or b"training_process" in command


def session(process: "subprocess.Popen[bytes]") -> list[int]:
    """Processes of a command that still run."""
    alive = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(folder.name)) == process.pid and is_training(int(folder.name)):
                alive.append(int(folder.name))
        except OSError:
            continue
    return alive


def dictionary(root: Path, kind: str) -> Path:
    (found,) = [f.parent for f in root.glob(f"dictionaries/{kind}-*/recipe.json") if f.parent.suffix != ".partial"]
    return found


def assert_same(one: Path, other: Path, kind: str) -> None:
    """The same dictionary, at the same address, to 1e-5, with the same counts and curves."""
    first, second = dictionary(one, kind), dictionary(other, kind)
    assert first.name == second.name
    weights, others = (load_file(folder / "weights.safetensors") for folder in (first, second))
    for name, value in weights.items():
        torch.testing.assert_close(others[name], value, atol=1e-5, rtol=0)
    a, b = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for folder in (first, second)
    )
    assert torch.equal(a["since_fired"], b["since_fired"])
    assert a["_pairs_seen"] == b["_pairs_seen"]
    curves, others_curves = (pd.read_parquet(folder / "history.parquet") for folder in (first, second))
    assert curves.columns.equals(others_curves.columns)
    np.testing.assert_allclose(curves, others_curves, atol=1e-4)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of whole batches."""
    root = tmp_path_factory.mktemp("alone")
    assert run_entrypoint("train", *SHORT, *ONE, f"features=[{','.join(KINDS)}]", f"artifacts={root}") == 0
    return root


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [(), ("torchrun",)], ids=["own", "torchrun"])
def test_two_processes_make_what_one_makes_of_whole_batches(
    tmp_path: Path, alone: Path, launcher: tuple[str, ...]
) -> None:
    settings = TWO if not launcher else TWO[2:]  # torchrun says how many there are
    kinds = ("sae", "ncl") if launcher else KINDS
    features = f"features=[{','.join(kinds)}]"
    process = start(*launcher, *SHORT, *settings, features, f"artifacts={tmp_path}", log=tmp_path / "log")
    status, said = finish(process), (tmp_path / "log").read_text()
    assert status == 0, said
    assert "Warning" not in said
    for kind in kinds:
        assert len(re.findall(rf"\b{kind}: trained", said)) == 1
        assert_same(alone, tmp_path, kind)
    history = pd.read_parquet(dictionary(tmp_path, "sae") / "history.parquet")
    assert history["pairs"].tolist() == [1280, 2560]
    state = torch.load(dictionary(tmp_path, "sae") / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert (state["since_fired"] >= 28).all(0).sum() > 0  # AuxK had something to do
    assert not session(process)


@pytest.fixture(scope="module")
def long_alone(tmp_path_factory: pytest.TempPathFactory) -> float:
    """Error of what one process makes of the long training, undisturbed."""
    root = tmp_path_factory.mktemp("long")
    assert run_entrypoint("train", *LONG, *ONE, f"artifacts={root}") == 0
    return long_fvu(root)


def long_fvu(root: Path) -> float:
    """Reconstruction error at the end of the long training."""
    history = pd.read_parquet(dictionary(root, "sae") / "history.parquet")
    assert history[["step", "pairs"]].to_numpy().tolist() == [[STEPS, STEPS * 128]]
    return float(history["val/image/fvu"].item())


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["rank 0", "rank 1", "torchrun rank 1"])
def test_a_rank_that_is_killed_ends_the_others_and_one_process_goes_on(
    command: Command, tmp_path: Path, victim: str, long_alone: float
) -> None:
    launcher = ("torchrun",) if victim.startswith("torchrun") else ()
    log = tmp_path / "log"
    process = start(*launcher, *LONG, *TWO, f"artifacts={tmp_path}/killed", log=log)
    dictionaries = tmp_path / "killed" / "dictionaries"
    wait_for(lambda: list(dictionaries.glob("*.partial/checkpoints/last.ckpt")), process)
    if victim == "rank 0":
        os.kill(process.pid, signal.SIGKILL)
    else:
        ranks = [child for child in children(process.pid) if is_training(child)]
        os.kill(ranks[-1], signal.SIGKILL)
    begun = time.monotonic()
    assert finish(process, 60) != 0
    while session(process) and time.monotonic() < begun + 60:
        time.sleep(0.1)
    assert not session(process)
    if victim == "rank 1":
        lines = [line for line in log.read_text().splitlines() if line.strip()]
        assert lines[-1].startswith("error: process 1 of the training was killed by signal 9; run the same command")
        assert "Traceback" not in log.read_text()
    assert not list(dictionaries.glob("sae-*/recipe.json"))

    run = command("train", *LONG, *ONE, f"artifacts={tmp_path}/killed")  # with another number of processes
    assert run.status == 0, run.err
    assert long_fvu(tmp_path / "killed") == pytest.approx(long_alone, rel=0.1)  # roundings grow over so many steps


@pytest.mark.slow
def test_one_process_goes_on_with_what_two_have_begun(command: Command, tmp_path: Path, alone: Path) -> None:
    cut = start(*SHORT, *TWO, f"artifacts={tmp_path}", "trainer.max_time={seconds:0.001}", log=tmp_path / "log")
    assert finish(cut) == 1
    assert "error: training sae was cut short after 1 steps" in (tmp_path / "log").read_text()
    run = command("train", *SHORT, *ONE, f"artifacts={tmp_path}")
    assert run.status == 0, run.err
    assert_same(alone, tmp_path, "sae")


@pytest.mark.slow
def test_an_interrupt_ends_all(tmp_path: Path) -> None:
    process = start(*LONG, *TWO, f"artifacts={tmp_path}", log=tmp_path / "log")
    wait_for(lambda: list(tmp_path.glob("dictionaries/*.partial/checkpoints/last.ckpt")), process)
    os.kill(process.pid, signal.SIGINT)
    assert finish(process, 60) == 130
    assert (tmp_path / "log").read_text().splitlines()[-1] == "interrupted: run the same command again to go on"
    assert not session(process)


@pytest.mark.slow
@pytest.mark.parametrize(
    "processes", [ONE, TWO, ONE_PASS, (*ONE_PASS, *TWO)], ids=["one", "two", "pass", "pass of two"]
)
def test_a_training_that_is_preempted_ends_at_once_and_says_so(tmp_path: Path, processes: tuple[str, ...]) -> None:
    process = start(*LONG, *processes, f"artifacts={tmp_path}", log=tmp_path / "log")
    wait_for(lambda: list(tmp_path.glob("dictionaries/*.partial/checkpoints/last.ckpt")), process)
    os.kill(process.pid, signal.SIGTERM)  # to rank 0 alone: the others do not know
    assert finish(process, 60) == 128 + signal.SIGTERM
    assert not session(process)
    said = (tmp_path / "log").read_text().splitlines()[-1]
    assert said == "stopped by SIGTERM; run the same command again to go on from the last checkpoint"


def start_by_srun(folder: Path, *each: tuple[str, ...]) -> "list[subprocess.Popen[bytes]]":
    """Start processes as `srun` does, with the arguments of each; `folder / rank` has what it prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    step = {"SLURM_NTASKS": str(len(each)), "SLURM_NNODES": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        start(*arguments, log=folder / str(rank), **step, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank))
        for rank, arguments in enumerate(each)
    ]


@pytest.mark.slow
def test_processes_with_different_settings_train_nothing_and_say_so(tmp_path: Path) -> None:
    settings = (*SHORT, "features=sae", f"artifacts={tmp_path}")
    ranks = start_by_srun(tmp_path, (*settings, "sae.lr=1e-3"), (*settings, "sae.lr=2e-3"))
    assert [finish(rank) for rank in ranks] == [1, 1]
    for log in (tmp_path / "0", tmp_path / "1"):
        line = log.read_text().splitlines()[-1]
        assert line.startswith("error: process 1 of the training: ")
        assert "was given sae.lr=2e-3 where process 0 was given sae.lr=1e-3: start all with the same command" in line
    assert not list(tmp_path.glob("dictionaries/sae-*/recipe.json"))


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_of_processes_that_srun_started_one_ends_soon_after_the_other(tmp_path: Path, victim: int) -> None:
    ranks = start_by_srun(tmp_path, *[(*LONG, "training.batch_size=64", f"artifacts={tmp_path}")] * 2)
    wait_for(lambda: list(tmp_path.glob("dictionaries/*.partial/checkpoints/last.ckpt")), ranks[0])
    os.kill(ranks[victim].pid, signal.SIGKILL)
    assert finish(ranks[1 - victim], 60) == 1
    last = (tmp_path / str(1 - victim)).read_text().splitlines()[-1]
    assert last == f"error: process {victim} of the training has gone; run the same command again to go on"


@pytest.mark.slow
def test_processes_that_slurm_preempts_end_and_say_so_once(tmp_path: Path) -> None:
    ranks = start_by_srun(tmp_path, *[(*LONG, "training.batch_size=64", f"artifacts={tmp_path}")] * 2)
    wait_for(lambda: list(tmp_path.glob("dictionaries/*.partial/checkpoints/last.ckpt")), ranks[0])
    for rank in ranks:
        rank.send_signal(signal.SIGTERM)
    for rank in ranks:
        finish(rank, 60)
    logs = [(tmp_path / str(number)).read_text() for number in range(2)]
    assert logs[0].count("run the same command again to go on") == 1
    assert "Traceback" not in logs[0] + logs[1]


SLURM = {"SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}
ELASTIC = {
    "TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "1", "MASTER_ADDR": "node7", "MASTER_PORT": "29500",
}  # fmt: skip


def test_places_that_launchers_give(monkeypatch: pytest.MonkeyPatch) -> None:
    assert place_of_this_process() is None
    for key, value in {**SLURM, "SLURM_NODELIST": "node[7-8]", "SLURM_JOB_ID": "123456"}.items():
        monkeypatch.setenv(key, value)
    assert place_of_this_process() == Place(3, 4, 1, 2, 1, "node7", 18456, "srun", "mmmono-0")
    cpu = {"accelerator": "cpu", "max_steps": 5, "val_check_interval": 1}
    layout = read_trainer({**cpu, "devices": 2, "num_nodes": 2}).here()
    assert (layout.processes, layout.nodes) == (4, 2)
    assert read_trainer({**cpu, "devices": 1}).here() == layout
    with pytest.raises(ConfigError, match="set trainer.devices=2 trainer.num_nodes=2"):
        read_trainer({**cpu, "devices": 4})
    monkeypatch.setenv("SLURM_NTASKS", "5")
    with pytest.raises(ProcessError, match="start equally many on each"):
        place_of_this_process()
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert place_of_this_process() is None
    for key, value in ELASTIC.items():
        monkeypatch.setenv(key, value)
    assert place_of_this_process() == Place(3, 4, 1, 2, 1, "node7", 29500, "torchrun", "mmmono-0")
