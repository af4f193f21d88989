"""Numba kernel that finds the k largest entries of each row (`mmmono.dictionaries.sparse.topk`). Compiled on first use.

Sorting, or a selection by a pivot, mispredicts a branch for every other entry that it compares. Here comparisons are
vector instructions without branches. A bound that at least k entries reach comes from the maxima of 2k or more groups of
columns; the few entries that reach it are collected, and bisection finds the k-th largest of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

Array = np.ndarray[Any, Any]

LANES = 32  # entries that are compared with the bound at a time
LOWEST, HIGHEST = np.int32(-0x80000000), np.int32(0x7FFFFFFF)
SIGN = np.int32(31)  # place of the sign in a float32
SPARE = 8  # an eighth more entries than k may reach the bound before others are told from them


@intrinsic
def _as_int(_: Any, number: Any) -> Any:
    """Bits of a float32 as an int32."""
    return types.int32(number), lambda _, builder, __, arguments: builder.bitcast(arguments[0], ir.IntType(32))


@intrinsic
def _as_float(_: Any, number: Any) -> Any:
    """The float32 that has the bits of an int32."""
    return types.float32(number), lambda _, builder, __, arguments: builder.bitcast(arguments[0], ir.FloatType())


@intrinsic
def _reached(_: Any, row: Any, first: Any, bound: Any) -> Any:
    """Bit i of the result says whether entry `first` + i of a contiguous float32 row is at least `bound`, or NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        entries, places = (ir.VectorType(kind, LANES) for kind in (ir.FloatType(), ir.IntType(32)))
        address = builder.bitcast(builder.gep(array.data, [arguments[1]]), entries.as_pointer())
        undefined = ir.Constant(entries, ir.Undefined)
        one = builder.insert_element(undefined, arguments[2], ir.Constant(ir.IntType(32), 0))
        bounds = builder.shuffle_vector(one, undefined, ir.Constant(places, [0] * LANES))
        reached = builder.fcmp_unordered(">=", builder.load(address, align=4), bounds)
        return builder.bitcast(reached, ir.IntType(LANES))

    return types.uint32(row, first, bound), generate


@intrinsic
def _lowest_bit(_: Any, bits: Any) -> Any:
    """Place of the lowest bit that is set, if any is."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        place = builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))
        return builder.zext(place, ir.IntType(64))

    return types.int64(bits), generate


@njit(cache=True, nogil=True, error_model="numpy")
def _key(number: np.float32) -> np.int32:
    """A whole number that grows with a float32, other than NaN; −0 has that of 0."""
    bits = _as_int(number + np.float32(0))
    return np.int32(bits ^ ((bits >> SIGN) & HIGHEST))


@njit(cache=True, nogil=True, error_model="numpy")
def _number_of(key: np.int32) -> np.float32:
    """The float32 with a key."""
    return _as_float(np.int32(key ^ ((key >> SIGN) & HIGHEST)))


@njit(cache=True, nogil=True, error_model="numpy")
def _border(keys: Array, k: int, most: int) -> np.int32:
    """Return a key that at least k of the keys reach, and at most `most` of them unless several equal it."""
    lowest, highest = HIGHEST, LOWEST
    for j in range(len(keys)):
        lowest, highest = min(lowest, keys[j]), max(highest, keys[j])
    low, high = np.int64(lowest), np.int64(highest)  # k or more reach `low`, fewer than k exceed `high`
    while low < high:
        middle = (low + high + 1) >> 1
        bar, count = np.int32(middle), np.int32(0)
        for j in range(len(keys)):
            count += np.int32(keys[j] >= bar)
        if count < k:
            high = middle - 1
        else:
            low = middle
            if count <= most:
                break
    return np.int32(low)


@njit(cache=True, nogil=True, error_model="numpy")
def _set_maxima(row: Array, groups: int, maxima: Array) -> None:
    """Set `maxima` to those of columns j, j + width, j + 2 width, … for an even number of groups of `width` columns."""
    width = len(maxima)
    before, after = row[:width], row[width : 2 * width]
    for j in range(width):
        maxima[j] = before[j] if before[j] > after[j] else after[j]
    for group in range(2, groups, 2):
        before, after = row[group * width : (group + 1) * width], row[(group + 1) * width : (group + 2) * width]
        for j in range(width):  # a single store each, without a branch, is what is vectorized
            largest = maxima[j]
            largest = before[j] if before[j] > largest else largest
            maxima[j] = after[j] if after[j] > largest else largest


@njit(cache=True, nogil=True, error_model="numpy")
def _collect(row: Array, bound: np.float32, numbers: Array, places: Array) -> int:
    """Collect the entries of a row that are at least `bound`, or NaN, in order; return their number."""
    count, whole = 0, len(row) - len(row) % LANES
    for first in range(0, whole, LANES):
        left = _reached(row, first, bound)
        while left != 0:
            place = first + _lowest_bit(left)
            left = np.uint32(left & (left - np.uint32(1)))
            numbers[count], places[count] = row[place], place
            count += 1
    for place in range(whole, len(row)):
        if not row[place] < bound:
            numbers[count], places[count] = row[place], place
            count += 1
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def largest(rows: Array, k: int, values: Array, indices: Array) -> None:
    """Find the k largest entries of each row. Of equal ones the first columns are taken; NaN is larger than any number.

    Args:
        rows: float32 [rows, columns], contiguous, with k columns or more.
        k: entries to find, at least 1.
        values: float32 [rows, k], receives them in the order of their columns.
        indices: int64 [rows, k], receives their columns.
    """
    columns = rows.shape[1]
    groups = 1
    while columns // (2 * groups) >= 2 * k:
        groups *= 2
    maxima = np.empty(columns // groups, np.float32)
    numbers, places, keys = np.empty(columns, np.float32), np.empty(columns, np.int64), np.empty(columns, np.int32)
    for i in range(len(rows)):
        bound = np.float32(-np.inf)
        if groups > 1:
            _set_maxima(rows[i], groups, maxima)
            for j in range(len(maxima)):
                keys[j] = _key(maxima[j]) if maxima[j] == maxima[j] else LOWEST
            bound = _number_of(_border(keys[: len(maxima)], k, k + k // SPARE))
        count = _collect(rows[i], bound, numbers, places)
        for j in range(count):
            keys[j] = _key(numbers[j]) if numbers[j] == numbers[j] else HIGHEST
        border = _border(keys[:count], k, k)
        equal = k
        for j in range(count):
            equal -= keys[j] > border
        found = 0
        for j in range(count):
            if keys[j] > border or (keys[j] == border and equal > 0):
                values[i, found], indices[i, found] = numbers[j], places[j]
                found += 1
                equal -= keys[j] == border
