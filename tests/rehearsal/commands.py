"""The commands behind a make target, as its recipe would run them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmmono.commands.make import shell_lines

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Entry:
    """A run of an entrypoint.

    Attributes:
        entrypoint: `mds` for experiments/mds.py.
        overrides: its arguments.
        variables: of its environment.
    """

    entrypoint: str
    overrides: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return shlex.join(["python", f"experiments/{self.entrypoint}.py", *self.overrides])


def behind_make(arguments: Sequence[str]) -> list[Entry]:
    """The entrypoints that `make` with these arguments would run, in order; nothing is run.

    Raises:
        ValueError: make refuses.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "MMMONO_TOGETHER"))}
    for variable in ("MODEL", "DATASET", "FEATURES", "ARGS", "EXACT", "COCO", "FOR", "JOBS"):
        environment.pop(variable, None)
    command = ["make", "--dry-run", "--old-file=.venv/.ready", *arguments]
    run = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    if run.returncode:
        raise ValueError(f"{shlex.join(command)}: {run.stderr.strip()}")
    lines = run.stdout.replace("\\\n", " ").splitlines()
    return [entry for line in lines for quoted in _quoted_commands(line) if (entry := parse(quoted)) is not None]


def _quoted_commands(line: str) -> list[str]:
    """The lines that a line of a recipe stands for: those that mmmono.commands.make would run, or the line itself."""
    words = shlex.split(line) if re.match(r"\S*python -m mmmono\.commands\.make ", line) else []
    return shell_lines(words[3:]) if words else [line]


def parse(line: str, braces: bool = False) -> Entry | None:
    """A shell line that runs an entrypoint; None for any other.

    Args:
        line: such as `NAME=value python experiments/mds.py 'features=[raw]'  # a remark`, or `mmmono mds 'features=[raw]'`.
        braces: whether a shell would expand braces outside quotes, as bash does on a command line.
    """
    words = shlex.split(line, comments=True)
    variables = {}
    while words and (match := re.fullmatch(r"([A-Z][A-Z0-9_]*)=(.*)", words[0], re.DOTALL)):
        variables[match[1]] = match[2]
        del words[0]
    if len(words) > 1 and words[0] == "mmmono":
        words = ["python", f"experiments/{words[1]}.py", *words[2:]]
    if len(words) < 2 or not re.fullmatch(r"(.*/)?python\S*", words[0]):
        return None
    match = re.fullmatch(r"(?:.*/)?experiments/(\w+)\.py", words[1])
    if not match:
        return None
    if braces and re.search(r"(?<!')[\w/.-]*\{\d+\.\.\d+\}", re.sub(r"'[^']*'|\"[^\"]*\"", "", line)):
        raise ValueError(f"a shell expands the braces of: {line}")
    return Entry(match[1], tuple(words[2:]), variables)
