"""The seed of all generators."""

import os
import random

import lightning as L
import numpy as np
import torch

from mmmono.core.seeding import seed_everything


def drawn() -> tuple[float, float, float, str, str]:
    numbers = random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002
    return *numbers, os.environ["PL_GLOBAL_SEED"], os.environ["PL_SEED_WORKERS"]


def test_all_generators_are_where_lightning_would_set_them() -> None:
    for seed in (0, 1, 2**32 - 1):
        L.seed_everything(seed, workers=True, verbose=False)
        expected = drawn()
        seed_everything(seed)
        assert drawn() == expected
