"""Runs entrypoints one after another in this process, which imports PyTorch once: `… COMMANDS.json OUTCOMES.json`.

Each outcome, exit status, seconds and what was written to stderr, is a line of the second file as soon as it is known.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
import traceback
from pathlib import Path

from tests.pipeline.conftest import run_entrypoint


def main(commands: Path, outcomes: Path) -> None:
    """Run them; one that raises leaves its traceback on stderr and has status 70."""
    for command in json.loads(commands.read_text()):
        print(f"\n$ python experiments/{command['entrypoint']}.py {' '.join(command['overrides'])}", flush=True)
        start = time.perf_counter()
        before = dict(os.environ)
        os.environ.update(command["variables"])
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            try:
                status = run_entrypoint(command["entrypoint"], *command["overrides"])
            except Exception:
                traceback.print_exc()
                status = 70
        os.environ.clear()
        os.environ.update(before)
        print(errors.getvalue(), flush=True)
        outcome = {"status": status, "seconds": time.perf_counter() - start, "errors": errors.getvalue()}
        with outcomes.open("a") as file:
            file.write(json.dumps(outcome) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
