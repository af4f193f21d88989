"""Passes over rows of activations, compiled on first use: each reads its rows once, as they are stored.

Array libraries make a pass of every operation, and hold every intermediate in full; over half-precision rows that is
ten passes where the arithmetic of one fits into the time that reading takes. Rows come as arrays `[rows, features]` of
float32, or of half-precision numbers as `stored` gives them, and can be divided by their lengths on the way.

All in one file, because the cache of compiled code looks at no other when it decides whether it is up to date.
"""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

Array = np.ndarray[Any, Any]

CHUNK_ROWS = 32  # so many float32 contrasts are summed before they go into a float64 sum
TOGETHER = 128  # features of a row are worked on together
AHEAD = 2  # rows between the one that is worked on and the one that is brought in from memory meanwhile
ZERO, ONE, INFINITY = np.float32(0), np.float32(1), np.float32(np.inf)

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


@intrinsic
def _fetch(_: Any, address: Any) -> Any:
    """Have the cache line at an address brought in; any address will do."""

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        prefetch = cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0")
        at = builder.inttoptr(arguments[0], pointer)
        builder.call(prefetch, [at, number(0), number(3), number(1)])  # for reading, into every cache, as data
        return None

    return types.void(types.intp), generate


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _length(row: Array) -> np.float32:
    """Euclidean length; not finite where one of the numbers is not."""
    total = ZERO
    for j in range(len(row)):
        number = _number(row[j])
        total += number * number
    return np.sqrt(total)


@njit(cache=True, nogil=True, error_model="numpy")
def _extended(shortest: np.float32, longest: np.float32, length: np.float32) -> tuple[np.float32, np.float32]:
    """The shortest and the longest so far with one more; the longest stays NaN once it is."""
    return (length if length < shortest else shortest), (length if length > longest or length != length else longest)


@njit(cache=True, nogil=True, error_model="numpy")
def _fetch_after(rows: Array, i: int, first: int, end: int) -> None:
    """Have numbers [first, end) of the row AHEAD of this one brought in while this one is worked on."""
    start = rows.ctypes.data + (i + AHEAD) * rows.strides[0]
    for address in range(start + first * rows.itemsize, start + end * rows.itemsize, 64):
        _fetch(address)


@njit(cache=True, nogil=True, error_model="numpy")
def add_ratios(
    image: Array, text: Array, normalize: bool, sums: Array, squares: Array, counts: Array, center: Array | None = None
) -> tuple[np.float32, np.float32]:
    """Add contrasts (|z_img| − |z_txt|) / (|z_img| + |z_txt|), twice what the ratio of Eq. 1 exceeds ½ by, to their sums.

    Where both sides are nearly alike the contrast keeps its digits, and the ratio would not. A pair with nothing on
    either side adds nothing.

    Args:
        image, text: both sides of some pairs.
        normalize: divide rows by their lengths.
        sums, squares: float64 [features], of the contrasts' deviations from the center, and of their squares.
        counts: int64 [3, features], pairs that are active on either side, on the image's, on the text's.
        center: float32 [features], a number near the feature's mean contrast, so that squares keep theirs too; 0 by default.

    Returns:
        Lengths of the shortest row and of the longest, which is not finite where a number is not.
    """
    pairs, features = image.shape
    some, more = np.zeros(features, np.float32), np.zeros(features, np.float32)
    middle = np.zeros(features, np.float32) if center is None else center
    shortest, longest, f, g = INFINITY, ZERO, ONE, ONE
    everywhere = 0  # pairs that are active on both sides in every feature, which is most of dense ones
    for i in range(pairs):
        left, right, all_active = _length(image[i]), _length(text[i]), True
        shortest, longest = _extended(shortest, longest, left)
        shortest, longest = _extended(shortest, longest, right)
        if normalize:
            f, g = ONE / left, ONE / right
        _fetch_after(image, i, 0, features)
        _fetch_after(text, i, 0, features)
        for j in range(features):
            x, y = abs(_number(image[i, j])) * f, abs(_number(text[i, j])) * g
            all_active &= (x > ZERO) & (y > ZERO)
            deviation = (x - y) / (x + y) - middle[j]
            # Afterwards: a division that is skipped is no vector instruction.
            deviation = ZERO if x + y == ZERO else deviation
            some[j] += deviation
            more[j] += deviation * deviation
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
    return shortest, longest


@njit(cache=True, nogil=True, error_model="numpy")
def keep_best(rows: Array, normalize: bool, start: int, values: Array, places: Array) -> tuple[np.float32, np.float32]:
    """Sort in the activations that exceed their feature's last best so far; of equal ones the earlier stays first.

    Args:
        rows: consecutive samples.
        normalize: divide rows by their lengths.
        start: place of the first in the stream.
        values: float32 [features, m], the best so far in descending order.
        places: int64 [features, m], where in the stream they were.

    Returns:
        Lengths of the shortest row and of the longest, which is not finite where a number is not.
    """
    features, m = values.shape
    last = values[:, m - 1].copy()
    shortest, longest, factor = INFINITY, ZERO, ONE
    for i in range(len(rows)):
        length = _length(rows[i])
        shortest, longest = _extended(shortest, longest, length)
        if normalize:
            factor = ONE / length
        for first in range(0, features, TOGETHER):
            end, none = min(first + TOGETHER, features), True
            _fetch_after(rows, i, first, end)
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
    return shortest, longest
