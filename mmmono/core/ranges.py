"""Checks of numeric arguments. Each error names the argument, its value and what it may be."""

from __future__ import annotations

import math
import operator
from typing import Any, SupportsFloat


def check_whole(name: str, value: object, least: int = 1, most: int | None = None, of: str = "") -> None:
    """Raise ValueError unless an argument is a whole number within limits.

    Args:
        name: the argument's name.
        value: what was given. 2.0 and True are no whole numbers; those of NumPy and tensors of one are.
        least, most: smallest and largest value allowed; None: there is no largest.
        of: what there are `most` of, such as `latents`.
    """
    number: int | None
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        number = None
    if number is not None and least <= number and (most is None or number <= most):
        return
    limits = f"between {least} and {f'the {most} {of}' if of else most}"
    if most is None:
        raise ValueError(
            f"{name}={_shown(value)} must be {'' if number is not None else 'a whole number of '}at least {least}"
        )
    raise ValueError(f"{name}={_shown(value)} must {'lie' if number is not None else 'be a whole number'} {limits}")


def check_number(
    name: str,
    value: object,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> None:
    """Raise ValueError unless an argument is a finite number within limits.

    Args:
        name: the argument's name.
        value: what was given.
        least, most: smallest and largest value allowed.
        above, below: bounds that are themselves not allowed.
    """
    number = math.nan
    if isinstance(value, SupportsFloat) and not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError, RuntimeError, OverflowError):  # an array of several, an int of 400 digits
            number = math.nan
    if (
        math.isfinite(number)
        and (least is None or number >= least)
        and (above is None or number > above)
        and (most is None or number <= most)
        and (below is None or number < below)
    ):
        return
    bounds = {"at least": least, "above": above, "at most": most, "below": below}
    wanted = " and ".join(f"{words} {bound:g}" for words, bound in bounds.items() if bound is not None)
    if above is not None and below is not None:
        raise ValueError(f"{name}={_shown(value)} must lie between {above:g} and {below:g}")
    kind = "" if math.isfinite(number) else "a finite number" if math.isinf(number) else "a number"
    raise ValueError(f"{name}={_shown(value)} must be {f'{kind} {wanted}'.strip()}")


def _shown(value: Any) -> str:
    """The value as it was written; one of NumPy as a plain number."""
    return repr(value.item() if hasattr(value, "item") and getattr(value, "size", None) == 1 else value)
