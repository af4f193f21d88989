"""Sums over the pairs of a block by the compiled loops of `mmmono.core.kernels`, with all threads that PyTorch has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from mmmono.core.parts import in_parts, num_parts
from mmmono.features import KernelRows
from mmmono.features.grouping import GroupNumbers
from mmmono.modality.groups import WholeGroups

Array = np.ndarray[Any, Any]
Norms = tuple[float, float]  # the smallest and the largest
RatioSums = tuple[Tensor, Tensor, Tensor]  # sums of contrasts, of their squares, and counts; [threads, …]


def product_sums(
    image: KernelRows, text: KernelRows, groups: WholeGroups, classes: GroupNumbers, start: int
) -> Float64[Tensor, "classes products features"]:
    """Return the sums of `kernels.add_products` for each class of groups.

    Args:
        image, text: the pairs of the block.
        groups: those of its groups that are summed.
        classes: class of each group, from 0 on.
        start: position of the first pair, for errors.

    Raises:
        NonFiniteError, StoreError: see `KernelRows.check`.
    """
    from mmmono.core.kernels import PRODUCTS, add_products

    size = int(classes.max()) + 1 if len(classes) else 0
    totals = np.zeros((num_parts(), size, PRODUCTS, image.shape[1]))

    def add(part: int, of_part: slice, members: tuple[Array, Array]) -> tuple[Norms, Norms]:
        norms: tuple[Norms, Norms] = add_products(*sides, image.normalize, members, classes[of_part], totals[part])
        return norms

    sides = image.numbers(), text.numbers()
    _in_groups(image, text, groups, start, add)
    return torch.from_numpy(totals.sum(0))


def group_ratio_sums(
    image: KernelRows,
    text: KernelRows,
    groups: WholeGroups,
    center: Float32[Tensor, " features"],
    half: bool,
    start: int,
) -> Float64[Tensor, "sums features"]:
    """Return the sums of `kernels.add_group_ratios`.

    Args:
        image, text: the pairs of the block.
        groups: those of its groups that are summed.
        center, half: see `kernels.add_group_ratios`.
        start: position of the first pair, for errors.

    Raises:
        NonFiniteError, StoreError: see `KernelRows.check`.
    """
    from mmmono.core.kernels import GROUP_SUMS, add_group_ratios

    totals = np.zeros((num_parts(), GROUP_SUMS, image.shape[1]))
    middle = center.double().numpy()

    def add(part: int, _: slice, members: tuple[Array, Array]) -> tuple[Norms, Norms]:
        norms: tuple[Norms, Norms] = add_group_ratios(*sides, image.normalize, members, middle, half, totals[part])
        return norms

    sides = image.numbers(), text.numbers()
    _in_groups(image, text, groups, start, add)
    return torch.from_numpy(totals.sum(0))


def add_single_ratios(
    image: KernelRows, text: KernelRows, center: Float32[Tensor, " features"], sums: RatioSums, start: int
) -> None:
    """Add contrasts of pairs that are groups of their own, by `kernels.add_ratios`, to sums that each thread has.

    Args:
        image, text: the pairs.
        center: see `kernels.add_ratios`.
        sums: what they are added to.
        start: position of the first pair, for errors.

    Raises:
        NonFiniteError, StoreError: see `KernelRows.check`.
    """
    from mmmono.core.kernels import add_ratios

    images, texts, middle = image.numbers(), text.numbers(), center.numpy()
    excess, squared, counts = (of_threads.numpy() for of_threads in sums)

    def work(part: int, first: int, end: int) -> tuple[Norms, Norms]:
        mine = excess[part], squared[part], counts[part]
        norms: tuple[Norms, Norms] = add_ratios(images[first:end], texts[first:end], image.normalize, *mine, middle)
        return norms

    _check(image, text, in_parts(work, len(image), len(excess)), start)


def _in_groups(
    image: KernelRows,
    text: KernelRows,
    groups: WholeGroups,
    start: int,
    add: Callable[[int, slice, tuple[Array, Array]], tuple[Norms, Norms]],
) -> None:
    """Let each thread add some of the groups, and check the rows that they have read."""

    def work(part: int, first: int, end: int) -> tuple[Norms, Norms]:
        return add(part, slice(first, end), (groups.rows, groups.starts[first : end + 1]))

    _check(image, text, in_parts(work, len(groups), num_parts()), start)


def _check(image: KernelRows, text: KernelRows, norms: Sequence[tuple[Norms, Norms]], start: int) -> None:
    image.check([of_images for of_images, _ in norms], start)
    text.check([of_texts for _, of_texts in norms], start)
