"""What workers of a cluster read and load in tests; in a module that they can import."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
from torch import Tensor

from mmmono.core.errors import ModelError
from mmmono.features import Modality, RawFeatures
from tests.fakes import ColorEncoder, ColorPairs


class KillsItsProcess(ColorPairs):
    """Ends the process that reads a part in its midst, the first `times` times."""

    SIZES = (7, 5, 3, 0, 6, 1, 4, 9)

    def __init__(self, marks: Path, part: int, times: int) -> None:
        super().__init__(self.SIZES)
        self.marks, self.part, self.times = marks, part, times

    def read(self, part: int):  # type: ignore[no-untyped-def]
        for place, item in enumerate(super().read(part)):
            if (part, place) == (self.part, 2) and len(list(self.marks.iterdir())) < self.times:
                (self.marks / str(os.getpid())).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield item


class KillsItsFolder(RawFeatures):
    """Raw features that end the process that encodes the first row of a store's range, the first `times` times."""

    def __init__(self, dim: int, marks: Path, first: Tensor, times: int) -> None:
        super().__init__(dim)
        self.marks, self.first, self.times = marks, first, times

    def encode(self, embeddings: Tensor, modality: Modality) -> Tensor:
        if torch.equal(embeddings[0], self.first) and len(list(self.marks.iterdir())) < self.times:
            (self.marks / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return embeddings


class Unloadable(ColorEncoder):
    def __init__(self) -> None:
        raise ModelError("these weights are broken")


class Absent(ColorPairs):
    """Stands for a class of a package that the machines of the cluster lack."""

    def __reduce__(self) -> tuple[object, ...]:
        return (__import__, ("a_package_that_is_not_there",))


def colors(device: str) -> ColorEncoder:
    return ColorEncoder()


def unloadable(device: str) -> ColorEncoder:
    return Unloadable()


def misses_a_file(device: str) -> ColorEncoder:
    raise KeyError("a file")
