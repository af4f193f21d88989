"""Paired activations and embeddings that are hard on arithmetic, from a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
BLOCKS = [
    1,
    7,
    60,
    61,
]  # of 61 pairs: single rows, a last block of fewer, one whose last is a single row, and one alone
PAIRS, FEATURES = 61, 9


def paired(seed: int = 0, pairs: int = PAIRS, features: int = FEATURES, density: float = 0.7) -> tuple[Tensor, Tensor]:
    """Activations of either sign; the first pair is active everywhere, the last two features hardly ever."""
    rng = np.random.default_rng(seed)
    sides = []
    for _ in range(2):
        side = rng.standard_normal((pairs, features)) * rng.gamma(2.0, size=features)
        side[rng.random((pairs, features)) > density] = 0
        side[2:, -1] = 0
        side[0] = 1 + np.arange(features) / features
        sides.append(torch.from_numpy(side))
    return sides[0], sides[1]


def offset(seed: int = 0, spread: float = 1e-2, mean: float = 1e3) -> tuple[Tensor, Tensor]:
    """Activations whose mean is large beside their spread, exact in float32."""
    rng = np.random.default_rng(seed)
    sides = [mean + spread * rng.standard_normal((PAIRS, FEATURES)) for _ in range(2)]
    image, text = (torch.from_numpy(side).float().double() for side in sides)
    return image, text


def cast(values: Tensor, dtype: torch.dtype, scale: float = 1.0) -> tuple[Tensor, np.ndarray]:
    """Scaled values in a type, and the same rounded values in float64 for a reference."""
    rounded = (values * scale).to(dtype)
    return rounded, rounded.double().numpy()


def fits(scale: float, dtype: torch.dtype) -> bool:
    """Whether activations of this scale lie within the normal numbers of a type."""
    limits = torch.finfo(dtype)
    return limits.tiny < scale * 1e-3 and scale * 30 < limits.max


def blocks(block: int, *sides: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The sides in blocks of rows."""
    return zip(*(side.split(block) for side in sides), strict=True)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.T.contiguous().T,
    "strided": lambda x: torch.stack([x, x + 1], dim=2).flatten(1)[:, ::2],
    "reversed twice": lambda x: x.flip(0).contiguous().flip(0),
    "with gradient": lambda x: x.clone().requires_grad_(),
}
