"""Kills a command at random moments, runs it again to its end, and compares with a run that was left alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.chaos.comparison import contents, differences
from tests.chaos.processes import run, warm_up
from tests.chaos.scenarios import Arguments, Scenario


@dataclass(frozen=True)
class Trial:
    """One command that was killed and run again.

    Attributes:
        scenario: its name.
        moment: seconds after its start at which it was killed.
        killed: whether it was still running then.
        wrong: what differs from the run that was left alone; empty if all is well.
    """

    scenario: str
    moment: float
    killed: bool
    wrong: list[str] = field(default_factory=list)


class Stage:
    """A scenario with its inputs, the root that each trial starts from, and the results of an undisturbed run.

    Args:
        scenario: what is run.
        folder: everything is written below it.
        drawingclip: an artifacts root with DrawingCLIP, for scenarios that need it.
    """

    def __init__(self, scenario: Scenario, folder: Path, drawingclip: Path | None = None) -> None:
        self.scenario, self.folder = scenario, folder
        self.inputs, self.before = folder / "inputs", folder / "before"
        self.log = folder / "log"
        self.inputs.mkdir(parents=True)
        self.before.mkdir()
        if scenario.inputs:
            scenario.inputs(self.inputs)
        if scenario.needs_drawingclip:
            assert drawingclip is not None
            shutil.copytree(drawingclip / "models", self.before / "models")
            (self.before / "towers").symlink_to((drawingclip / "towers").resolve())  # large, and only read
        for command in scenario.prepare:
            self._to_the_end(command, self.before)
        warm_up()
        root = self._fresh_root("undisturbed")
        self.seconds = self._to_the_end(scenario.command, root)
        self.expected = contents(root)

    def trials(self, moments: int, seed: int = 0) -> Iterator[Trial]:
        """Kill the command at as many moments, drawn uniformly from its running time."""
        generator = np.random.default_rng(seed)
        for number in range(moments):
            yield self.trial(f"{number}", float(generator.uniform(0, self.seconds)))

    def trial(self, name: str, moment: float) -> Trial:
        """Kill the command at a moment, run it again, compare."""
        root = self._fresh_root(name)
        status, _ = run(self._command(self.scenario.command, root), self.log, kill_after=moment)
        try:
            self._to_the_end(self.scenario.command, root)
            wrong = differences(self.expected, contents(root))
        except RuntimeError as error:
            wrong = [str(error)]
        if not wrong:
            shutil.rmtree(root)
        return Trial(self.scenario.name, moment, status != 0, wrong)

    def _fresh_root(self, name: str) -> Path:
        # The same folder for each trial, since paths may stand in what is written.
        root = self.folder / "root"
        if root.exists():
            shutil.move(root, self.folder / f"kept-before-{name}")
        shutil.copytree(self.before, root, symlinks=True)
        return root

    def _to_the_end(self, command: Arguments, root: Path) -> float:
        status, seconds = run(self._command(command, root), self.log)
        if status:
            last = self.log.read_text(errors="replace").strip().splitlines()[-3:]
            raise RuntimeError(f"{command[0]} ended with status {status}: {' | '.join(last)} ({self.log})")
        return seconds

    def _command(self, command: Arguments, root: Path) -> Arguments:
        overrides = [o.replace("{{", "{").replace("}}", "}").replace("{inputs}", str(self.inputs)) for o in command[1:]]
        at = 1 if overrides and overrides[0] == "-m" else 0
        return (command[0], *overrides[:at], f"artifacts={root}", *overrides[at:])
