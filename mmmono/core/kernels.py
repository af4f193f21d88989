"""Passes over rows of activations, compiled on first use: each reads its rows once, as they are stored.

Array libraries make a pass of every operation, and hold every intermediate in full; over half-precision rows that is
ten passes where the arithmetic of one fits into the time that reading takes. Rows come as arrays `[rows, features]` of
float32, or of half-precision numbers as `stored` gives them, and each has a factor that its numbers are multiplied by.

All in one file, because the cache of compiled code looks at no other when it decides whether it is up to date.
"""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor

Array = np.ndarray[Any, Any]

CHUNK_ROWS = 32  # so many float32 ratios are summed before they go into a float64 sum
LOOKED_AT = 128  # features of a row are tested together for a new best among them
ZERO = np.float32(0)

# Where a processor converts half precision itself, loops over it become vector instructions.
_X86 = platform.machine().lower() in ("x86_64", "amd64")
_HALF = binding.get_host_cpu_features().get("f16c", False) if _X86 else platform.machine() in ("aarch64", "arm64")


def takes(dtype: np.dtype[Any]) -> bool:
    """Whether the kernels take rows of this type: float32, and float16 where the processor converts it itself."""
    return dtype == np.float32 or (_HALF and dtype == np.float16)


def stored(rows: Tensor) -> Array:
    """Rows of the CPU as the kernels take them; half-precision numbers as their bits, since numba has no type for them."""
    array = rows.detach().contiguous().numpy()
    return array.view(np.uint16) if array.dtype == np.float16 else array


@intrinsic
def _number(_: Any, number: Any) -> Any:
    """A stored number as float32."""

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if signature.args[0] is types.float32:
            return arguments[0]
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(number), generate


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def lengths(rows: Array) -> Array:
    """Euclidean length of every row; not finite where one of its numbers is not."""
    result = np.empty(len(rows), np.float32)
    for i in range(len(rows)):
        total = ZERO
        for j in range(rows.shape[1]):
            number = _number(rows[i, j])
            total += number * number
        result[i] = np.sqrt(total)
    return result


@njit(cache=True, nogil=True, error_model="numpy")
def add_ratios(
    image: Array, image_factors: Array, text: Array, text_factors: Array, sums: Array, squares: Array, counts: Array
) -> None:
    """Add the ratios of Eq. 1 to their sums, a pair with nothing on either side as 0.

    Args:
        image, image_factors: one side of some pairs.
        text, text_factors: the other.
        sums, squares: float64 [features], of the ratios and of their squares.
        counts: int64 [3, features], pairs that are active on either side, on the image's, on the text's.
    """
    pairs, features = image.shape
    some, more = np.zeros(features, np.float32), np.zeros(features, np.float32)
    everywhere = 0  # pairs that are active on both sides in every feature, which is most of dense ones
    for i in range(pairs):
        f, g, all_active = image_factors[i], text_factors[i], True
        for j in range(features):
            x, y = abs(_number(image[i, j])) * f, abs(_number(text[i, j])) * g
            all_active &= (x > ZERO) & (y > ZERO)
            ratio = x / (x + y)
            ratio = ZERO if x + y == ZERO else ratio  # afterwards: a division that is skipped is no vector instruction
            some[j] += ratio
            more[j] += ratio * ratio
        if all_active:
            everywhere += 1
        else:
            for j in range(features):
                x, y = abs(_number(image[i, j])) * f, abs(_number(text[i, j])) * g
                counts[0, j] += x + y > ZERO
                counts[1, j] += x > ZERO
                counts[2, j] += y > ZERO
        if (i + 1) % CHUNK_ROWS == 0 or i + 1 == pairs:
            for j in range(features):
                sums[j] += some[j]
                squares[j] += more[j]
                some[j] = more[j] = ZERO
    for j in range(features):
        for k in range(3):
            counts[k, j] += everywhere


@njit(cache=True, nogil=True, error_model="numpy")
def keep_best(rows: Array, factors: Array, start: int, values: Array, places: Array) -> None:
    """Sort in the activations that exceed their feature's last best so far; of equal ones the earlier stays first.

    Args:
        rows, factors: consecutive samples.
        start: place of the first in the stream.
        values: float32 [features, m], the best so far in descending order.
        places: int64 [features, m], where in the stream they were.
    """
    features, m = values.shape
    last = values[:, m - 1].copy()
    for i in range(len(rows)):
        factor = factors[i]
        for first in range(0, features, LOOKED_AT):
            end, none = min(first + LOOKED_AT, features), True
            row, bar = rows[i, first:end], last[first:end]
            for j in range(len(row)):
                none &= _number(row[j]) * factor <= bar[j]
            if none:
                continue
            for j in range(first, end):
                value = _number(rows[i, j]) * factor
                if value > last[j]:
                    k = m - 1
                    while k > 0 and values[j, k - 1] < value:
                        values[j, k], places[j, k] = values[j, k - 1], places[j, k - 1]
                        k -= 1
                    values[j, k], places[j, k] = value, start + i
                    last[j] = values[j, m - 1]
