"""The command `mmmono`: runs an entrypoint of experiments/ from any folder, or lists all entrypoints."""

from __future__ import annotations

import difflib
import runpy
import sys
from pathlib import Path
from typing import NoReturn

import mmmono
from mmmono.core.output import ending_in_a_line
from mmmono.core.shipped import shipped

HEAD = """\
usage: mmmono ENTRYPOINT [group=option ...] [key=value ...]
       mmmono ENTRYPOINT --help     groups, settings and an example

`mmmono mds ...` does the same as `python experiments/mds.py ...` in a clone. Entrypoints:
"""


@ending_in_a_line()
def main() -> None:
    """Run the entrypoint named by the first argument with the other arguments."""
    name, arguments = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("--help", [])
    if name in ("-h", "--help"):
        print(HEAD)
        width = max(map(len, entrypoints()))
        for entrypoint in entrypoints():
            print(f"  {entrypoint:{width}}  {_purpose(entrypoint)}")
    elif name == "--version":
        print(f"mmmono {mmmono.__version__}")
    elif name in entrypoints():
        script = str(entrypoints()[name])
        sys.argv = [script, *arguments]
        runpy.run_path(script, run_name="__main__")  # the same as `python experiments/<name>.py`
    else:
        _fail(name)


def entrypoints() -> dict[str, Path]:
    """Names of the entrypoints, in alphabetical order, with their scripts."""
    return {path.stem: path for path in sorted(shipped("experiments").glob("*.py")) if path.stem != "__init__"}


def _purpose(entrypoint: str) -> str:
    from omegaconf import OmegaConf  # not at the top, so that an interrupt is one line however early it comes

    return str(OmegaConf.load(shipped("conf") / f"{entrypoint}.yaml").help.purpose)


def _fail(name: str) -> NoReturn:
    close = difflib.get_close_matches(name, entrypoints(), n=1)
    meant = f", did you mean {close[0]!r}?" if close else ""
    print(f"error: no entrypoint is called {name!r}{meant or ':'} 'mmmono' alone lists them all", file=sys.stderr)
    sys.exit(1)
