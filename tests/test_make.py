"""Make targets run entrypoints in processes of their own; signals reach these and leave no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from mmmono.commands.make import artifacts_root, run_to_end, shell_lines
from mmmono.commands.selection import make_words
from mmmono.commands.steps import Reproduction, analyses_of
from tests.pipeline.conftest import REPOSITORY

# Stands for an entrypoint: it says that it runs, and how it was stopped.
WAITING = """
import signal, sys, time
def stop(number, frame):
    print("stopped by", number, flush=True)
    sys.exit(130 if number == signal.SIGINT else 143)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, stop)
print("running", flush=True)
time.sleep(60)
"""
RUNNER = "import os, sys; from mmmono.commands.make import run_to_end; sys.exit(run_to_end(sys.argv[1:], os.environ))"


@pytest.mark.parametrize(
    ("number", "status", "of_group"),
    [(signal.SIGINT, 130, True), (signal.SIGTERM, 143, True), (signal.SIGTERM, 143, False)],
)
def test_a_signal_ends_the_entrypoint_and_then_the_target(number: int, status: int, of_group: bool) -> None:
    """An interrupt comes from the terminal, for the whole group; a termination may be for the runner alone."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER, sys.executable, "-c", WAITING],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    (os.killpg if of_group else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == status
    assert f"stopped by {int(number)}" in out
    assert err == ""


def test_an_interrupt_while_the_entrypoint_ends_does_not_hide_its_status() -> None:
    """Each shell interrupts the runner alone and ends at once, so the signal comes before, during or after the wait."""
    code = """
import collections, os
from mmmono.commands.make import run_to_end
words = ["sh", "-c", "kill -INT $PPID; exit 130"]
print(dict(collections.Counter(run_to_end(words, os.environ) for _ in range(100))))
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("{130: 100}\n", "")


def test_the_status_is_that_of_the_entrypoint(tmp_path: Path) -> None:
    assert run_to_end([sys.executable, "-c", "raise SystemExit(3)"], os.environ) == 3
    assert run_to_end([sys.executable, "-c", ""], os.environ) == 0


def test_the_status_is_that_of_the_entrypoint_where_ends_of_processes_are_ignored() -> None:
    """As what started this one may have asked for; `subprocess` then takes any status for 0."""
    code = (
        "import os, signal, sys; from mmmono.commands.make import run_to_end\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "print(run_to_end([sys.executable, '-c', 'raise SystemExit(3)'], os.environ))\n"
        "print(signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("3\nTrue\n", "")


def test_a_termination_while_the_command_is_started_ends_the_command() -> None:
    code = (
        "import os, signal, subprocess, sys; from mmmono.commands.make import run_to_end\n"
        "class Popen(subprocess.Popen):\n"
        "    def __init__(self, *args, **kwargs):\n"
        "        super().__init__(*args, **kwargs)\n"
        "        print(self.pid, flush=True); os.kill(os.getpid(), signal.SIGTERM)\n"
        "subprocess.Popen = Popen\n"
        "print(run_to_end(['sh', '-c', 'exec sleep 600 >&- 2>&-'], os.environ))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    child, *status = run.stdout.split()
    if Path(f"/proc/{child}").exists():
        os.kill(int(child), signal.SIGKILL)
        pytest.fail("it goes on alone")
    assert (status, run.stderr) == (["143"], "")


def test_a_command_of_the_report_gives_make_the_arguments_as_they_were_given(tmp_path: Path) -> None:
    given = ["artifacts=/a", "dataset.image=sp ace/$HOME/i.npy", 'dataset.label="it\'s"', "dataset.root=x{0,1}*"]
    (tmp_path / "Makefile").write_text("said:\n\t@printf '%s\\n' $(ARGS)\n")
    run = subprocess.run(
        ["bash", "-c", f"make said ARGS={make_words(given)}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.stdout.splitlines() == given
    assert make_words(["artifacts=/a", "seed=1"]) == "'artifacts=/a seed=1'"


def test_bytecode_is_written_though_a_container_says_otherwise() -> None:
    shown = ["make", "-f", str(REPOSITORY / "Makefile"), "--eval", "shown: ; @env", "shown"]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    lines = subprocess.run(shown, env=env, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "PYTHONUNBUFFERED=1" in lines
    assert not any(line.startswith("PYTHONDONTWRITEBYTECODE=") for line in lines)


def test_what_is_left_out_is_no_command() -> None:
    lines = shell_lines(["paper", "--exact", "--", "model=clip_rn50", "dataset=cc3m"])
    assert not any("ablation.py" in line for line in lines)  # COCO is not given
    lines = shell_lines(["paper", "--exact", "--coco", "/data/coco", "--", "model=clip_rn50", "dataset=cc3m"])
    (ablation,) = [line for line in lines if "ablation.py" in line]
    assert ablation.endswith("+paper=table1 dataset.root=/data/coco")


def test_a_target_that_does_not_exist_is_one_line() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "mmmono.commands.make", "section-9", "--", "model=drawingclip"],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 1
    assert run.stderr.startswith("error: no analysis belongs to section-9: choose one of section-2.1, section-2.2")


def test_a_plan_is_of_the_targets_that_are_named() -> None:
    (line,) = shell_lines(
        ["plan", "--all", "plan", "--for", "names consequences", "--", "dataset=icons", "names.fdr=0.1"]
    )
    assert line.startswith("MMMONO_TOGETHER='names consequences dataset=icons' ")
    assert line.endswith("experiments/plan.py dataset=icons names.fdr=0.1 'plan.targets=[names,consequences]'")
    (line,) = shell_lines(["plan", "--", "dataset=icons"])
    assert "plan.targets" not in line


@pytest.mark.parametrize(
    "root", ["/data/größe", "/data/run=2", "/data/a (1)", "/data/it's", "/data/a,b", "2017", "my root"]
)
def test_any_folder_may_be_the_root(root: str) -> None:
    assert artifacts_root(["model=drawingclip", f"artifacts={root}"]) == root


def test_the_root_is_read_as_the_entrypoints_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert artifacts_root(["artifacts=~/mine"]) == artifacts_root(["artifacts=${oc.env:HOME}/mine"]) == "/home/me/mine"
    assert artifacts_root(["artifacts=/a", "artifacts='/b'"]) == "/b"
    assert artifacts_root([]) == "artifacts"


@pytest.mark.parametrize(
    "setting", ["dataset.limit=900", "dataset.split=all", "dataset.label=group", "+dataset.seed=1"]
)
def test_pairs_of_its_own_are_changed_by_no_setting_of_model_and_dataset(setting: str) -> None:
    given = ["model=clip_rn50", "dataset=cc3m", setting, "features=[sae,infonce]"]
    own, synthetic = shell_lines(["objectives", "--all", "objectives", "--", *given])
    assert own.endswith(f"experiments/objectives.py {' '.join(given[:3])} 'features=[sae,infonce]'")
    assert synthetic.endswith("experiments/objectives_synthetic.py 'features=[sae,infonce]'")


@pytest.mark.parametrize("folder", ["x=y", "a,b", "2017", "sp ace"])
def test_the_folder_of_coco_may_have_any_name(folder: str) -> None:
    (ablation,) = analyses_of("section-2.2")[:1]
    *_, root = Reproduction(exact=True, coco=folder).arguments(ablation)
    assert settings_of(root) == ("dataset.root", folder)


def settings_of(override: str) -> tuple[str, object]:
    """Key and value of an override, as Hydra reads them."""
    parsed = OverridesParser.create().parse_override(override)
    return parsed.key_or_group, parsed.value()
