"""The command `mmmono`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mmmono
from mmmono.pipeline import cli
from tests.pipeline.conftest import REPOSITORY

PLAN = ["plan", "model=clip_rn50", "dataset=openmoji", "features=raw", "plan.only=[]"]


def mmmono_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mmmono", *arguments])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_alone_it_lists_every_entrypoint_with_its_purpose(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in ((), ("--help",), ("-h",)):
        assert mmmono_command(monkeypatch, *arguments) == 0
        _, _, entrypoints = capsys.readouterr().out.partition("Entrypoints:\n")
        listed = [line.split(maxsplit=1) for line in entrypoints.strip().splitlines()]
        assert [name for name, _ in listed] == sorted(f.stem for f in (REPOSITORY / "experiments").glob("*.py"))
        assert dict(listed)["mds"].startswith("score every feature's modality dominance (Eq. 1)")


@pytest.mark.parametrize(
    ("name", "message"),
    [("mdss", "'mdss', did you mean 'mds'?"), ("nothing-like-it", "'nothing-like-it': 'mmmono' alone"), ("", "'': 'm")],
)
def test_an_unknown_entrypoint_is_one_line(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mmmono_command(monkeypatch, name, "seed=1") == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: no entrypoint is called {message}")
    assert err.count("\n") == 1


def test_it_tells_its_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert mmmono_command(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"mmmono {mmmono.__version__}\n"


def test_it_is_the_entrypoint_from_any_folder(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    commands = (["-m", "mmmono", "mds"], [str(REPOSITORY / "experiments" / "mds.py")])
    for arguments, status in ((["--help"], 0), (["features=nope"], 1)):
        runs = [
            subprocess.run(
                [sys.executable, *command, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            for command in commands
        ]
        assert [run.returncode for run in runs] == [status, status]
        assert (runs[0].stdout, runs[0].stderr) == (runs[1].stdout, runs[1].stderr)


def test_what_nobody_reads_any_more_is_no_traceback() -> None:
    """As with `mmmono mds --help | head -1`; what is left may be more than a pipe holds."""
    code = (
        "import os, sys; from mmmono.pipeline.entrypoint import entrypoint\n"
        "read, write = os.pipe(); os.close(read); os.dup2(write, 1)\n"
        "sys.argv = ['mds', '--help']; entrypoint('mds')(lambda cfg: None)()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert (run.returncode, run.stderr) == (1, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_may_be_closed(tmp_path: Path, closed: str) -> None:
    """As some schedulers start commands: nothing is written into a file that has got the number of a stream."""
    code = (
        "import mmmono.pipeline.running as e; e.quiet()\n"
        f"file = open({str(tmp_path / 'file')!r}, 'w'); assert file.fileno() > 2\n"
        "from mmmono.reporting.tables import console; console.print('x' * 9); import sys, os; print('y', file=sys.stderr)\n"
        "sys.stdin.read(); os.system('echo z; echo z >&2')"
    )
    run = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, code], cwd=REPOSITORY, stdin=subprocess.DEVNULL
    )
    assert run.returncode == 0
    assert (tmp_path / "file").read_text() == ""
