"""`make chaos`: kills every kind of work with -9 at random moments and shows that nothing is lost, wrong or left over."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from tests.chaos.processes import run
from tests.chaos.scenarios import OPENMOJI, SCENARIOS
from tests.chaos.trials import Stage, Trial


def main() -> None:
    """Run the scenarios and print the table; the exit status is 1 if any trial went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", help="which; all by default")
    parser.add_argument("--moments", type=int, default=20, help="random moments a scenario")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for each other on a busy machine take minutes
    chosen = [s for s in SCENARIOS if not options.scenarios or s.name in options.scenarios]
    table = Table(title=f"kill -9 at {options.moments} random moments of each, then the same command again")
    for column in ("work", "seconds undisturbed", "killed at work", "ended before", "same results", "wrong"):
        table.add_column(column)
    failed = False
    with TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        if any(scenario.needs_drawingclip for scenario in chosen):
            assert run(("extract", f"artifacts={folder / 'drawingclip'}", *OPENMOJI), folder / "log")[0] == 0
        for scenario in chosen:
            stage = Stage(scenario, folder / scenario.name, folder / "drawingclip")
            trials = list(_printed(stage, options.moments, options.seed))
            wrong = [t for t in trials if t.wrong]
            failed |= bool(wrong)
            killed = sum(t.killed for t in trials)
            table.add_row(
                scenario.name, f"{stage.seconds:.1f}", str(killed), str(len(trials) - killed),
                str(len(trials) - len(wrong)), str(len(wrong)), style="red" if wrong else "green",
            )  # fmt: skip
    Console().print(table)
    sys.exit(failed)


def _printed(stage: Stage, moments: int, seed: int) -> list[Trial]:
    trials = []
    for trial in stage.trials(moments, seed):
        outcome = "; ".join(trial.wrong[:5]) or "same results"
        print(f"{trial.scenario} killed after {trial.moment:.2f} s of {stage.seconds:.1f}: {outcome}", flush=True)
        trials.append(trial)
    return trials


if __name__ == "__main__":
    main()
