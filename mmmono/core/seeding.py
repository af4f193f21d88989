"""One seed for all generators of random numbers, and their states."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch, and Lightning's data loaders, as Lightning's function of this name does.

    Args:
        seed: from 0 to 2^32 − 1.
    """
    os.environ["PL_GLOBAL_SEED"] = str(seed)  # for processes that Lightning starts
    os.environ["PL_SEED_WORKERS"] = "1"
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - other libraries draw from the global generator
    torch.manual_seed(seed)


@dataclass(frozen=True)
class Generators:
    """States of the global generators of Python, NumPy and PyTorch.

    Attributes:
        python, numpy, torch: on the CPU.
        cuda: on the current GPU; None if none is in use.
    """

    python: tuple[Any, ...]
    numpy: dict[str, Any]
    torch: Tensor
    cuda: Tensor | None

    @classmethod
    def now(cls) -> Self:
        """Return the present states."""
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
        numpy = np.random.get_state(legacy=False)  # noqa: NPY002 - other libraries draw from the global generator
        assert isinstance(numpy, dict)
        return cls(random.getstate(), numpy, torch.get_rng_state(), cuda)

    def restore(self) -> None:
        """Let the generators go on from these states."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002 - as above
        torch.set_rng_state(self.torch)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda)
