"""Runs entrypoints until they would build something: all that they check before, and nothing heavy.

`python -m tests.until_built COMMANDS.json OUTCOMES.json`, in a process whose HF_ENDPOINT names a hub on loopback. A command
has `entrypoint`, `overrides` and `variables`; an outcome has `status` (0: it ended well, 1: it refused), `errors` (from
stderr) and `reached` (the kind of the artifact that it was about to build, or null).
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
from typing import Any, NoReturn

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from mmmono.core.artifacts import Artifacts
from mmmono.pipeline.command_line import hydra_arguments
from mmmono.pipeline.settings import CONF
from tests.pipeline.conftest import run_entrypoint


class Reached(BaseException):
    """An artifact is about to be built; no `except Exception` takes it for a failure."""


def build(self: Artifacts, kind: str, *_: object, **__: object) -> NoReturn:
    """In place of `Artifacts.build` and `Artifacts.build_together`."""
    raise Reached(kind)


def first_job(entrypoint: str, overrides: list[str]) -> list[str]:
    """The first job of a multirun, once launcher and sweeper have been composed with all the rest."""
    overrides = hydra_arguments([o for o in overrides if o not in ("-m", "--multirun")])
    parsed = OverridesParser.create().parse_overrides(overrides)
    single = [
        f"{o.input_line.split('=')[0]}={next(iter(o.sweep_string_iterator()))}"
        if o.is_sweep_override()
        else o.input_line
        for o in parsed
    ]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose(entrypoint, single, return_hydra_config=True)
    return [override for override in single if not override.startswith(("hydra/", "hydra."))]


def outcome(entrypoint: str, overrides: list[str]) -> dict[str, Any]:
    """Of one command."""
    errors, reached = io.StringIO(), None
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            if "-m" in overrides:
                overrides = first_job(entrypoint, overrides)
            status = run_entrypoint(entrypoint, *overrides)
        except Reached as stop:
            status, reached = 0, stop.args[0]
        except Exception:
            traceback.print_exc()
            status = 70
    return {"status": status, "errors": errors.getvalue(), "reached": reached}


def main(commands: Path, outcomes: Path) -> None:
    """Run all commands."""
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(seconds / 100)  # a judge that does not answer is asked again at once
    Artifacts.build = build  # type: ignore[method-assign, assignment]
    Artifacts.build_together = build  # type: ignore[method-assign, assignment]
    before = dict(os.environ)
    found = []
    for command in json.loads(commands.read_text()):
        os.environ.update(command["variables"])
        found.append(outcome(command["entrypoint"], command["overrides"]))
        os.environ.clear()
        os.environ.update(before)
    outcomes.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
