"""Property tests again and again with new seeds, for as long as asked for, and a table of what they tried.

    python -m tests.fuzz --seconds 600
    python -m tests.fuzz --seed 1234 --rounds 1 -k test_invariants    # one failure again
    python -m tests.fuzz tests/data                                   # the properties of one folder

Every test that hypothesis drives takes part, and so does what carries the marker `fuzz` and is driven by it. Each
round gives every test a seed of its own; a test that failed is not repeated. The ordinary run of the tests tries the
same properties on fewer examples.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import pytest
from hypothesis import seed
from rich.console import Console
from rich.markup import escape
from rich.table import Table


@dataclass
class Target:
    """One property test, and what came of it.

    Attributes:
        item: pytest's.
        examples: inputs tried.
        seconds: spent on it.
        failures: seed and report of each failing round.
        skipped: why it was not run, if it was not.
    """

    item: Any
    examples: int = 0
    seconds: float = 0.0
    failures: list[tuple[int, str]] = field(default_factory=list)
    skipped: str = ""

    def run(self, number: int) -> None:
        """One round with this seed."""
        handle = self.item.obj.hypothesis
        inner: Callable[..., Any] = handle.inner_test

        @wraps(inner)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.examples += 1
            return inner(*args, **kwargs)

        handle.inner_test = counted
        start = time.perf_counter()
        try:
            seed(number)(self.item.obj)
            self.item.config.hook.pytest_runtest_protocol(item=self.item, nextitem=None)
        finally:
            handle.inner_test = inner
            self.seconds += time.perf_counter() - start


class Rounds:
    """A pytest plugin that runs what was collected in rounds instead of once."""

    def __init__(self, seconds: float, rounds: int | None, first_seed: int) -> None:
        self.seconds = seconds
        self.rounds = rounds
        self.seed = first_seed
        self.targets: dict[str, Target] = {}
        self.done = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for item in session.items:
            if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
                self.targets[item.nodeid] = Target(item)
        deadline = time.monotonic() + self.seconds
        while self.rounds is None or self.done < self.rounds:
            for target in self._remaining():
                if self.done and time.monotonic() > deadline:
                    return True
                target.run(self.seed + self.done)
            self.done += 1
            if not self._remaining() or (self.rounds is None and time.monotonic() > deadline):
                break
        return True

    def _remaining(self) -> list[Target]:
        return [target for target in self.targets.values() if not target.failures and not target.skipped]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        target = self.targets[report.nodeid]
        if report.failed:
            target.failures.append((self.seed + self.done, report.longreprtext))
        elif report.skipped:
            target.skipped = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else "skipped"


def show(rounds: Rounds, console: Console) -> None:
    """The table of targets, and below it the report of each failure with the command that repeats it."""
    table = Table(
        "target", "examples", "seconds", "failures", title=f"{rounds.done} whole rounds, from seed {rounds.seed}"
    )
    for name, target in rounds.targets.items():
        seeds = ", ".join(f"seed {number}" for number, _ in target.failures)
        outcome = (
            f"[red]{seeds}[/]" if seeds else f"[yellow]{escape(target.skipped)}[/]" if target.skipped else "[green]0[/]"
        )
        table.add_row(escape(name), str(target.examples), f"{target.seconds:.1f}", outcome)
    console.print(table)
    for name, target in rounds.targets.items():
        for number, report in target.failures:
            console.print(f"[red]{escape(name)}[/]: python -m tests.fuzz --seed {number} --rounds 1 '{escape(name)}'")
            console.print(escape("\n".join(report.splitlines()[-60:])))


def main() -> int:
    """0 where every target held, 1 where one failed, 2 where there is none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", default=["tests"], help="what pytest collects")
    parser.add_argument("--seconds", type=float, default=600, help="how long; every target has one round at least")
    parser.add_argument("--rounds", type=int, help="so many rounds instead")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="of the first round")
    parser.add_argument("-k", default="", help="only targets whose names match")
    arguments = parser.parse_args()
    rounds = Rounds(arguments.seconds, arguments.rounds, arguments.seed)
    quiet = ["-o", "addopts=--strict-markers", "-p", "no:cacheprovider", "-p", "no:terminal"]
    options = [*quiet, "-m", "fuzz", "-k", arguments.k, *arguments.paths]
    status = pytest.main(options, plugins=[rounds])
    if not rounds.targets or status in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERNAL_ERROR):
        print("no property test was collected: run pytest --collect-only -m fuzz to see why", file=sys.stderr)
        return 2
    show(rounds, Console(width=None if sys.stdout.isatty() else 160))
    return int(any(target.failures for target in rounds.targets.values()))


if __name__ == "__main__":
    sys.exit(main())
