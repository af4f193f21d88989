"""One seed for all generators of random numbers."""

from __future__ import annotations

import os
import random

import numpy as np
import torch


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
