"""Shares of an extraction that processes without a cluster do, each started by itself, for example by a Slurm array."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from mmmono.core.claims import Claims
from mmmono.core.errors import ConfigError
from mmmono.core.shown import as_typed
from mmmono.features.writer import FeatureStoreWriter

SLURM = "slurm"


@dataclass(frozen=True)
class Share:
    """Every `of`-th part of a source, beginning with the `number`-th.

    Attributes:
        number: of this share, from 1 to `of`.
        of: number of shares.
    """

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def parts(self, count: int) -> list[int]:
        """Indices of this share's parts, of `count` parts; none if there are fewer parts than shares."""
        return list(range(self.number - 1, count, self.of))


def read_share(text: str, environment: Mapping[str, str] = os.environ) -> Share:
    """Return the share that `extraction.part_of` names: `3/64`, or `slurm` for the one of this task of a Slurm array.

    Raises:
        ConfigError: the text names no share, or the process is no task of a Slurm array, or of one with gaps.
    """
    if text == SLURM:
        return _share_in_slurm(environment)
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(
            f"extraction.part_of={as_typed(text)} is no share: give one from 1/64 to 64/64 to each of 64 processes, or slurm"
        )
    return Share(int(match[1]), int(match[2]))


def _share_in_slurm(environment: Mapping[str, str]) -> Share:
    """Number the tasks of an array, such as `--array=0-63` or `--array=100-400:100`, from 1."""
    names = ("ID", "MIN", "MAX", "STEP", "COUNT")
    given = {name: environment.get(f"SLURM_ARRAY_TASK_{name}", "1" if name == "STEP" else "") for name in names}
    if missing := [name for name, value in given.items() if not value.isdecimal()]:
        raise ConfigError(
            f"extraction.part_of=slurm, but SLURM_ARRAY_TASK_{missing[0]} is not set: start it by sbatch --array=1-64"
        )
    task, first, last, step, count = (int(given[name]) for name in names)
    if count == 1:
        first = last = task
    if (task - first) % step or (last - first) // step + 1 != count:
        raise ConfigError(
            f"extraction.part_of=slurm cannot number the tasks of an array with gaps ({count} from {first} to {last}): "
            "name each one's share, such as extraction.part_of=3/64"
        )
    return Share((task - first) // step + 1, count)


@dataclass(frozen=True)
class ClaimedParts:
    """Claims a part before it is read, unless it is finished or another process works on it.

    Attributes:
        claims: of this process.
        writer: of the store.
    """

    claims: Claims
    writer: FeatureStoreWriter

    def __call__(self, part: int) -> bool:
        """Return whether the part is this process's to read."""
        if self.writer.report(part) is not None or not self.claims.take(part):
            return False
        if self.writer.report(part) is not None:  # finished between the two looks
            return False
        self.writer.forget_broken(part)
        return True
