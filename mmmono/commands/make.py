"""Runs the entrypoints that a make target stands for: `python -m mmmono.commands.make section-2.1 -- model=clip_rn50`.

Each entrypoint runs in a process of its own, as if it had been typed. `--list` lists the targets of all analyses.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from omegaconf import OmegaConf

from mmmono.analyses import ANALYSES
from mmmono.commands.clock import time_line
from mmmono.commands.listing import entrypoint_table, results_page
from mmmono.commands.steps import Reproduction, analyses_of, group_of, targets
from mmmono.core.artifacts import Artifacts
from mmmono.core.output import ending_in_a_line
from mmmono.core.shipped import shipped
from mmmono.pipeline.analysis import Analysis
from mmmono.pipeline.command_line import quote
from mmmono.pipeline.shared_settings import TOGETHER

PAGES = ("plan", "report", "explorer")  # entrypoints that are no analysis


@dataclass(frozen=True)
class Command:
    """A run of an entrypoint.

    Attributes:
        entrypoint: its name.
        arguments: its arguments.
        skipped: why it is not run; empty if it is.
    """

    entrypoint: str
    arguments: Sequence[str]
    skipped: str = ""


def commands(target: str, reproduction: Reproduction) -> list[Command]:
    """Return the runs of entrypoints that a target stands for, in order.

    Args:
        target: a target of analyses, `paper`, or the name of a page.
        reproduction: what it is of.
    """
    if target in PAGES:
        return [Command(target, _page_arguments(target, reproduction))]
    found = [_command(analysis, target, reproduction) for analysis in analyses_of(target)]
    if target == "paper":
        plan, report = (Command(page, _page_arguments(page, reproduction)) for page in ("plan", "report"))
        return [plan, *found, report]
    return found


def together(all_targets: Sequence[str], reproduction: Reproduction) -> str:
    """Return the value of the environment variable that tells each entrypoint about the others of a call."""
    running: dict[str, None] = {}
    for target in all_targets:
        for planned in (reproduction.planned or ("paper",)) if target == "plan" else (target,):
            for command in commands(planned, reproduction):
                preset = _preset(command.entrypoint) if reproduction.exact else ""
                running[f"{command.entrypoint}:{preset}" if preset else command.entrypoint] = None
    groups = [o for o in reproduction.given if group_of(o) in ("model", "dataset", "features") and "." not in _key(o)]
    return shlex.join([*running, *groups])


@ending_in_a_line()
def main() -> None:
    """Run a target; the exit status is that of the first entrypoint that fails."""
    options, reproduction = _read(sys.argv[1:])
    if options.list:
        print("\n".join(f"{target:16}{line}" for target, line in targets().items()))
    elif options.table:
        print(entrypoint_table())
    elif options.results:
        print(results_page(), end="")
    else:
        environment = {**os.environ, TOGETHER: together(options.all.split() or [options.target], reproduction)}
        found = commands(options.target, reproduction)
        if not found:
            sys.exit(f"error: no analysis belongs to {options.target}: choose one of {', '.join(targets())}")
        begun = time.time()
        for command in found:
            if command.skipped:
                print(command.skipped, flush=True)
            elif status := run_to_end(_words(command), environment):
                sys.exit(status)
        if line := time_line(Artifacts(artifacts_root(reproduction.given)), begun, time.time() - begun):
            print(line)


def run_to_end(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command in a process of its own; return its exit status, as a shell would: 128 + n after signal n.

    The terminal gives an interrupt to the command as well, which ends and tells how to go on. Here the interrupt does
    nothing: as an exception it could come between the end of the command and the reading of its status, which
    `subprocess` then takes for 0. It also does where ends of processes are ignored, as what started this one may have
    asked for. A termination is passed on to the command.
    """
    running: list[subprocess.Popen[bytes]] = []
    terminated = threading.Event()

    def terminate(*_: object) -> None:
        terminated.set()
        for process in running:
            process.terminate()

    handlers: dict[signal.Signals, Any] = {signal.SIGTERM: terminate, signal.SIGCHLD: signal.SIG_DFL}
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # the command inherits that interrupts are ignored
        handlers[signal.SIGINT] = lambda *_: None  # but no function
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        process = subprocess.Popen(words, env=environment)
        running.append(process)
        if terminated.is_set():  # while it was started
            process.terminate()
        status = process.wait()
        return 128 - status if status < 0 else status
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def shell_lines(arguments: Sequence[str]) -> list[str]:
    """Return the shell lines that a call with these arguments stands for, without running them."""
    options, reproduction = _read(arguments)
    variable = f"{TOGETHER}={shlex.quote(together(options.all.split() or [options.target], reproduction))}"
    found = commands(options.target, reproduction)
    return [f"{variable} {shlex.join(_words(command))}" for command in found if not command.skipped]


def _read(arguments: Sequence[str]) -> tuple[argparse.Namespace, Reproduction]:
    parser = argparse.ArgumentParser(prog="python -m mmmono.commands.make", description=__doc__)
    parser.add_argument("target", nargs="?", default="paper", help="such as section-2.1; by default paper")
    parser.add_argument("--list", action="store_true", help="list the targets")
    parser.add_argument("--table", action="store_true", help="print README's table of entrypoints")
    parser.add_argument("--results", action="store_true", help="print docs/results.md")
    parser.add_argument("--exact", action="store_true", help="use the paper's own settings")
    parser.add_argument("--coco", help="folder of COCO, for what the paper did on it")
    parser.add_argument("--for", dest="planned", default="", help="targets to plan; by default paper")
    parser.add_argument("--all", default="", help="all targets of the call of make")
    own, given = _split(arguments)
    options = parser.parse_args(own)
    return options, Reproduction(given, options.exact, options.coco or None, tuple(options.planned.split()))


def _words(command: Command) -> list[str]:
    return [sys.executable, str(shipped("experiments") / f"{command.entrypoint}.py"), *command.arguments]


def _command(analysis: Analysis, target: str, reproduction: Reproduction) -> Command:
    skipped = ""
    if reproduction.lacks_coco(analysis):
        skipped = f"left out: {analysis.title}: the paper's own is on COCO, give its folder as COCO=/path/to/coco"
    return Command(analysis.name, reproduction.arguments(analysis, alone=target == analysis.targets[0]), skipped)


def _page_arguments(page: str, reproduction: Reproduction) -> list[str]:
    arguments = list(reproduction.given)
    if page == "plan" and reproduction.planned:
        arguments.append(f"plan.targets=[{','.join(reproduction.planned)}]")
    if page == "plan" and reproduction.exact:
        arguments.append("plan.exact=true")
        arguments += [f"plan.coco={reproduction.coco}"] if reproduction.coco else []
    return arguments


def _preset(entrypoint: str) -> str:
    return next((a.paper_setting.option for a in ANALYSES if a.name == entrypoint and a.paper_setting), "")


def artifacts_root(given: Sequence[str]) -> str:
    """Return the artifacts root of a call, as Hydra reads it."""
    given = [override for override in given if _key(override) == "artifacts"]
    if not given:
        return "artifacts"
    value = OverridesParser.create().parse_override(quote(given[-1])).value()
    text = value.text if isinstance(value, QuotedString) else value
    return str(OmegaConf.create({"artifacts": text}).artifacts)


def _key(override: str) -> str:
    return override.partition("=")[0]


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the arguments at `--`, behind which the overrides are."""
    if "--" not in arguments:
        return list(arguments), []
    place = list(arguments).index("--")
    return list(arguments[:place]), list(arguments[place + 1 :])


if __name__ == "__main__":
    main()
