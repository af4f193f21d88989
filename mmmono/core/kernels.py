"""Numba kernels over rows of activations, which read each row once, in the type it is stored in. Compiled on first use.

Array libraries make one pass per operation and keep every intermediate result in full; over half-precision rows that
means ten passes, although the arithmetic of all fits into the time one read takes. Rows are arrays `[rows, features]`
of float32, or of half-precision values as `raw_array` returns them. Kernels can divide rows by their norms on the fly.

The kernels share helpers, and all are in one file because numba's cache checks only the file of a kernel to decide whether
its compiled code is up to date.
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
Norms = tuple[np.float32, np.float32]  # (min, max) of the norms of rows
Sides = tuple[Norms, Norms]  # of images and of texts

CHUNK_ROWS = 32  # rows summed in float32 before they are added to the float64 sum
TOGETHER = 128  # features processed as one block
AHEAD = 2  # prefetch distance in rows
PRODUCTS, GROUP_SUMS = 17, 11  # what `add_products` and `add_group_ratios` sum
CHUNK_PAIRS, TILE = 64, 64  # pairs and features of which products are summed in the fastest cache
ZERO, ONE, INFINITY = np.float32(0), np.float32(1), np.float32(np.inf)
NONE = (INFINITY, ZERO), (INFINITY, ZERO)  # norms of no rows

# Loops over half precision are vectorized only if the processor converts it in hardware.
_X86 = platform.machine().lower() in ("x86_64", "amd64")
_HALF = binding.get_host_cpu_features().get("f16c", False) if _X86 else platform.machine() in ("aarch64", "arm64")


def supports(dtype: np.dtype[Any]) -> bool:
    """Whether the kernels support rows of this dtype: float32, and float16 if the processor converts it in hardware."""
    return dtype == np.float32 or (_HALF and dtype == np.float16)


def raw_array(rows: Tensor) -> Array:
    """Return CPU rows as the kernels take them; float16 as raw uint16 bits, since numba has no CPU float16."""
    array = rows.detach().contiguous().numpy()
    return array.view(np.uint16) if array.dtype == np.float16 else array


@intrinsic
def _number(_: Any, number: Any) -> Any:
    """Convert a stored value to float32."""

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if signature.args[0] is types.float32:
            return arguments[0]
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(number), generate


@intrinsic
def _fetch(_: Any, address: Any) -> Any:
    """Prefetch the cache line at an address; invalid addresses are harmless."""

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        prefetch = cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0")
        at = builder.inttoptr(arguments[0], pointer)
        builder.call(prefetch, [at, number(0), number(3), number(1)])  # for reading, into all cache levels, as data
        return None

    return types.void(types.intp), generate


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _length(row: Array) -> np.float32:
    """Euclidean norm; NaN or inf if any element is."""
    total = ZERO
    for j in range(len(row)):
        number = _number(row[j])
        total += number * number
    return np.sqrt(total)


@njit(cache=True, nogil=True, error_model="numpy")
def _extended(shortest: np.float32, longest: np.float32, length: np.float32) -> tuple[np.float32, np.float32]:
    """Update the running (min, max) of norms; max stays NaN once it is."""
    return (length if length < shortest else shortest), (length if length > longest or length != length else longest)


@njit(cache=True, nogil=True, error_model="numpy")
def _fetch_after(rows: Array, i: int, first: int, end: int) -> None:
    """Prefetch elements [first, end) of the row AHEAD rows after row i."""
    start = rows.ctypes.data + (i + AHEAD) * rows.strides[0]
    for address in range(start + first * rows.itemsize, start + end * rows.itemsize, 64):
        _fetch(address)


@njit(cache=True, nogil=True, error_model="numpy")
def add_ratios(
    image: Array, text: Array, normalize: bool, sums: Array, squares: Array, counts: Array, center: Array | None = None
) -> Sides:
    """Add contrasts (|z_img| − |z_txt|) / (|z_img| + |z_txt|) = 2r − 1, with r from Eq. 1, to running sums.

    If both sides are nearly equal, the contrast keeps its digits while r would lose them. A pair with zeros on both
    sides adds nothing.

    Args:
        image, text: the two sides of the same pairs, [pairs, features].
        normalize: divide rows by their norms.
        sums, squares: float64 [features], sums of the deviations of contrasts from `center`, and of their squares.
        counts: int64 [3, features], pairs that are nonzero on either side, on the image side, on the text side.
        center: float32 [features], a value near each feature's mean contrast, so that the squares keep their digits
            too; 0 by default.

    Returns:
        (min, max) of the norms of images and of texts; max is NaN or inf if any element is.
    """
    pairs, features = image.shape
    some, more = np.zeros(features, np.float32), np.zeros(features, np.float32)
    middle = np.zeros(features, np.float32) if center is None else center
    (of_images, of_texts), f, g = NONE, ONE, ONE
    everywhere = 0  # pairs that are nonzero on both sides in every feature: most pairs, if features are dense
    for i in range(pairs):
        left, right, all_active = _length(image[i]), _length(text[i]), True
        of_images, of_texts = _extended(*of_images, left), _extended(*of_texts, right)
        if normalize:
            f, g = ONE / left, ONE / right
        _fetch_after(image, i, 0, features)
        _fetch_after(text, i, 0, features)
        for j in range(features):
            x, y = abs(_number(image[i, j])) * f, abs(_number(text[i, j])) * g
            all_active &= (x > ZERO) & (y > ZERO)
            deviation = (x - y) / (x + y) - middle[j]
            # After the division: a branch around it would prevent vectorization.
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
    return of_images, of_texts


@njit(cache=True, nogil=True, error_model="numpy")
def _set_factors(rows: Array, side: Array, normalize: bool, factors: Array, norms: Norms) -> Norms:
    """Set what some rows are to be multiplied by; return the (min, max) of their norms and of those before."""
    shortest, longest = norms
    for i in rows:
        length = _length(side[i])
        shortest, longest = _extended(shortest, longest, length)
        factors[i] = ONE / length if normalize else ONE
    return shortest, longest


@njit(cache=True, nogil=True, error_model="numpy")
def _begin_chunk(
    image: Array, text: Array, normalize: bool, groups: tuple[Array, Array], group: int, factors: Array, norms: Sides
) -> tuple[int, Sides]:
    """Take a chunk of groups with about CHUNK_PAIRS pairs into the cache, and set their factors.

    Returns:
        The group after the last one of the chunk; the norms of both sides so far.
    """
    rows, starts = groups
    end = group + 1
    while end + 1 < len(starts) and starts[end + 1] - starts[group] <= CHUNK_PAIRS:
        end += 1
    pairs = rows[starts[group] : starts[end]]
    of_images = _set_factors(pairs, image, normalize, factors[0], norms[0])
    return end, (of_images, _set_factors(pairs, text, normalize, factors[1], norms[1]))


@njit(cache=True, nogil=True, error_model="numpy")
def _load(image: Array, text: Array, f: np.float32, g: np.float32, x: Array, y: Array) -> bool:
    """Load a tile of both sides of a pair; return whether all of it is 0."""
    silent = True
    for j in range(len(image)):
        x[j], y[j] = _number(image[j]) * f, _number(text[j]) * g
        silent &= (x[j] == ZERO) & (y[j] == ZERO)
    return silent


@njit(cache=True, nogil=True, error_model="numpy")
def _gather(row: Array, first: bool, total: Array, fires: Array) -> None:
    """Add a tile of a row to that of its group, and whether it is not 0."""
    for j in range(len(row)):
        value = np.float64(row[j])
        active = 1.0 if value != 0.0 else 0.0
        total[j] = value if first else total[j] + value
        fires[j] = active if first else max(active, fires[j])


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _add_powers(x: Array, y: Array, fires: Array, answers: Array, sums: Array) -> None:
    """Add the products of a group's means to sums, TILE of each product after the other."""
    for j in range(len(x)):
        a, b = x[j], y[j]
        aa, ab, bb = a * a, a * b, b * b
        sums[j] += b
        sums[TILE + j] += bb
        sums[2 * TILE + j] += bb * b
        sums[3 * TILE + j] += bb * bb
        sums[4 * TILE + j] += a
        sums[5 * TILE + j] += ab
        sums[6 * TILE + j] += a * bb
        sums[7 * TILE + j] += ab * bb
        sums[8 * TILE + j] += aa
        sums[9 * TILE + j] += aa * b
        sums[10 * TILE + j] += ab * ab
        sums[11 * TILE + j] += aa * a
        sums[12 * TILE + j] += aa * ab
        sums[13 * TILE + j] += aa * aa
        sums[14 * TILE + j] += fires[j]
        sums[15 * TILE + j] += answers[j]
        sums[16 * TILE + j] += fires[j] * answers[j]


@njit(cache=True, nogil=True, error_model="numpy")
def add_products(
    image: Array, text: Array, normalize: bool, groups: tuple[Array, Array], classes: Array, totals: Array
) -> Sides:
    """Add xᵃ yᵇ of groups' mean activations x on images and y on texts to running sums, for all a + b from 1 to 4.

    Tiles of the features of about CHUNK_PAIRS pairs are summed in the fastest cache; where neither side of a pair activates
    a feature of a tile, nothing is added.

    Args:
        image, text: the two sides of the same pairs, [pairs, features].
        normalize: divide rows by their norms.
        groups: positions of pairs, group after group; and where each group begins in them and the last one ends.
        classes: the sums that each group is added to.
        totals: float64 [classes, PRODUCTS, features], sums of y, y², y³, y⁴, x, xy, xy², xy³, x², x²y, x²y², x³, x³y, x⁴,
            and the numbers of groups of which an image fires, a text, and both.

    Returns:
        (min, max) of the norms of images and of texts; max is NaN or inf if any element is.
    """
    rows, starts = groups
    a, b, factors = np.empty(TILE, np.float32), np.empty(TILE, np.float32), np.empty((2, len(image)), np.float32)
    x, y, fires, answers = np.empty(TILE), np.empty(TILE), np.empty(TILE), np.empty(TILE)
    sums, features = np.zeros((len(totals), PRODUCTS * TILE)), image.shape[1]
    norms, group = NONE, 0
    while group < len(classes):
        end, norms = _begin_chunk(image, text, normalize, groups, group, factors, norms)
        for first in range(0, features, TILE):
            tile = slice(first, min(first + TILE, features))
            width = tile.stop - first
            for member in range(group, end):
                silent = True
                for i in rows[starts[member] : starts[member + 1]]:
                    if _load(image[i, tile], text[i, tile], factors[0, i], factors[1, i], a, b):
                        continue
                    _gather(a[:width], silent, x, fires)
                    _gather(b[:width], silent, y, answers)
                    silent = False
                if silent:
                    continue
                size = starts[member + 1] - starts[member]
                if size > 1:
                    x /= size
                    y /= size
                _add_powers(x[:width], y[:width], fires, answers, sums[classes[member]])
            for number in range(len(sums)):
                if sums[number, 14 * TILE : 16 * TILE].any():
                    for k in range(PRODUCTS):
                        for j in range(width):
                            totals[number, k, first + j] += sums[number, k * TILE + j]
                    sums[number] = 0.0
        group = end
    return norms


@njit(cache=True, nogil=True, error_model="numpy")
def _add_contrasts(x: Array, y: Array, center: Array, half: bool, group: Array, sums: Array) -> None:
    """Add a tile of a pair's contrasts to the sums of its group, and to those of pairs."""
    for j in range(len(x)):
        a, b = abs(np.float64(x[j])), abs(np.float64(y[j]))
        known = 1.0 if a + b > 0.0 else 0.0
        contrast = (a - b) / (a + b)
        counted = 1.0 if half else known
        deviation = ((contrast if a + b > 0.0 else 0.0) - center[j]) * counted
        group[j] += deviation
        group[TILE + j] += counted
        group[2 * TILE + j] += known
        sums[j] += counted
        sums[TILE + j] += deviation
        sums[2 * TILE + j] += deviation * deviation
        sums[3 * TILE + j] += known
        sums[4 * TILE + j] += 1.0 if a > 0.0 else 0.0
        sums[5 * TILE + j] += 1.0 if b > 0.0 else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _add_group(group: Array, width: int, sums: Array) -> None:
    """Add the products of a group's sums to those of groups."""
    for j in range(width):
        excess, count, known = group[j], group[TILE + j], group[2 * TILE + j]
        sums[6 * TILE + j] += excess * excess
        sums[7 * TILE + j] += excess * count
        sums[8 * TILE + j] += count * count
        sums[9 * TILE + j] += 1.0 if count > 0.0 else 0.0
        sums[10 * TILE + j] += 1.0 if known > 0.0 else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def add_group_ratios(
    image: Array, text: Array, normalize: bool, groups: tuple[Array, Array], center: Array, half: bool, totals: Array
) -> Sides:
    """Add contrasts c (see `add_ratios`) of pairs in groups to running sums.

    Args:
        image, text: the two sides of the same pairs, [pairs, features].
        normalize: divide rows by their norms.
        groups: positions of pairs, group after group; and where each group begins in them and the last one ends.
        center: float64 [features], a value near each feature's mean contrast.
        half: whether a pair with zeros on both sides has contrast 0 and counts; else it does not.
        totals: float64 [GROUP_SUMS, features]. Over pairs: how many count, Σ (c − center), Σ (c − center)², and how many
            are nonzero on either side, on the image side, on the text side. Over groups, with S = Σ (c − center) over the n
            of their pairs that count: Σ S², Σ S n, Σ n², how many have n > 0, and how many a pair that is nonzero.

    Returns:
        (min, max) of the norms of images and of texts; max is NaN or inf if any element is.
    """
    rows, starts = groups
    a, b, factors = np.empty(TILE, np.float32), np.empty(TILE, np.float32), np.empty((2, len(image)), np.float32)
    sums, own, features = np.empty(GROUP_SUMS * TILE), np.empty(3 * TILE), image.shape[1]
    norms, group = NONE, 0
    while group < len(starts) - 1:
        end, norms = _begin_chunk(image, text, normalize, groups, group, factors, norms)
        for first in range(0, features, TILE):
            tile = slice(first, min(first + TILE, features))
            width = tile.stop - first
            sums[:] = 0.0
            for member in range(group, end):
                own[:], silent = 0.0, True
                for i in rows[starts[member] : starts[member + 1]]:
                    if _load(image[i, tile], text[i, tile], factors[0, i], factors[1, i], a, b) and not half:
                        continue
                    _add_contrasts(a[:width], b[:width], center[tile], half, own, sums)
                    silent = False
                if not silent:
                    _add_group(own, width, sums)
            for k in range(GROUP_SUMS):
                for j in range(width):
                    totals[k, first + j] += sums[k * TILE + j]
        group = end
    return norms


@njit(cache=True, nogil=True, error_model="numpy")
def _insert(values: Array, places: Array, value: np.float32, place: int) -> None:
    """Insert a value that exceeds the last one into a list in descending order, behind equal ones."""
    k = len(values) - 1
    while k > 0 and values[k - 1] < value:
        values[k], places[k] = values[k - 1], places[k - 1]
        k -= 1
    values[k], places[k] = value, place


@njit(cache=True, nogil=True, error_model="numpy")
def keep_best(rows: Array, normalize: bool, start: int, values: Array, places: Array) -> tuple[np.float32, np.float32]:
    """Update each feature's m largest activations with new rows; ties keep the earlier sample first.

    Args:
        rows: consecutive samples, [samples, features].
        normalize: divide rows by their norms.
        start: position of the first row in the stream.
        values: float32 [features, m], the largest activations so far, in descending order.
        places: int64 [features, m], their positions in the stream.

    Returns:
        (min, max) of the row norms; max is NaN or inf if any element is.
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
                    _insert(values[j], places[j], value, start + i)
                    last[j] = values[j, m - 1]
    return shortest, longest


@njit(cache=True, nogil=True, error_model="numpy")
def keep_best_of_both(
    rows: Array, normalize: bool, start: int, above: tuple[Array, Array], below: tuple[Array, Array], energy: Array
) -> tuple[np.float32, np.float32]:
    """Update each feature's m largest activations, its m most negative ones and the energies of both sides.

    Args:
        rows, normalize, start: see `keep_best`.
        above: values and places of the largest activations so far, as in `keep_best`.
        below: the same of the negated activations.
        energy: float64 [2, features], running sums of squared activations: of all, and of the negative ones.

    Returns:
        (min, max) of the row norms; max is NaN or inf if any element is.
    """
    (values, places), (under, under_places) = above, below
    features, m = values.shape
    bars = np.minimum(values[:, m - 1], under[:, m - 1])
    some, less = np.zeros(features, np.float32), np.zeros(features, np.float32)
    shortest, longest, factor = INFINITY, ZERO, ONE
    for i in range(len(rows)):
        length = _length(rows[i])
        shortest, longest = _extended(shortest, longest, length)
        if normalize:
            factor = ONE / length
        for first in range(0, features, TOGETHER):
            end, none = min(first + TOGETHER, features), True
            _fetch_after(rows, i, first, end)
            row, bar, total, negative = rows[i, first:end], bars[first:end], some[first:end], less[first:end]
            for j in range(len(row)):
                value = _number(row[j]) * factor
                none &= abs(value) <= bar[j]
                total[j] += value * value
                negative[j] += value * (value - abs(value))  # twice the square of a negative value; 0 of others
            if none:
                continue
            for j in range(first, end):
                value = _number(rows[i, j]) * factor
                if abs(value) > bars[j]:
                    if value > values[j, m - 1]:
                        _insert(values[j], places[j], value, start + i)
                    elif -value > under[j, m - 1]:
                        _insert(under[j], under_places[j], -value, start + i)
                    bars[j] = min(values[j, m - 1], under[j, m - 1])
        if (i + 1) % CHUNK_ROWS == 0 or i + 1 == len(rows):
            for j in range(features):
                energy[0, j] += some[j]
                energy[1, j] += less[j] / 2
                some[j] = less[j] = ZERO
    return shortest, longest
