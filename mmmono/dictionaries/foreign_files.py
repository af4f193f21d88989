"""Read tensors of other libraries' files, and nothing but tensors: a file cannot run code here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmmono.core.errors import DictionaryError
from mmmono.core.text import message_of
from mmmono.dictionaries.base import check_no_pointer


@dataclass(frozen=True)
class Hints:
    """What a user says about a file that does not say it itself.

    Attributes:
        kind: name of the class that wrote the file.
        k: active latents per sample; replaces the file's.
        input_scale: factor of the embeddings that the dictionary was trained with.

    Raises:
        DictionaryError: k is no whole number of at least 1, or the factor is not above 0.
    """

    kind: str | None = None
    k: int | None = None
    input_scale: float | None = None

    def __post_init__(self) -> None:
        k, scale = self.k, self.input_scale
        if k is not None and (isinstance(k, bool) or not isinstance(k, int) or k < 1):
            raise DictionaryError(
                f"dictionary.k={k!r} is no whole number of at least 1: give one, or dictionary.k=null"
            )
        if scale is not None and (isinstance(scale, bool) or not isinstance(scale, int | float) or not scale > 0):
            raise DictionaryError(f"dictionary.input_scale={scale!r} must be above 0: give such a number, or null")


def read_torch_file(file: Path) -> dict[str, Any]:
    """Read the mapping that `torch.save` wrote: tensors, numbers and text, and mappings of these.

    Raises:
        DictionaryError: the file is broken, or holds pickled objects of any other kind, which are not loaded.
    """
    check_no_pointer(file)
    # numpy's numbers, bytes with a type, are the only others allowed: some libraries save them beside the tensors.
    number = np.float32(0).__reduce__()[0]
    numbers: list[Any] = [number, np.dtype, type(np.dtype("f4")), type(np.dtype("f8"))]
    try:
        with torch.serialization.safe_globals(numbers):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # depends on what the file holds
        if any(word in str(error) for word in ("weights_only", "WeightsUnpickler")):
            raise DictionaryError(
                f"{file} holds pickled objects beside tensors, which could run code and are not loaded: where it was made, "
                "save its state_dict() instead"
            ) from error
        raise DictionaryError(f"{file} is no whole file of torch.save ({message_of(error)}): fetch it again") from error
    if not isinstance(content, dict):
        raise DictionaryError(f"{file} holds a {type(content).__name__}, not tensors by name: save a state_dict()")
    return content


def tensors_of(content: Mapping[str, Any], file: Path) -> dict[str, Tensor]:
    """Return the tensors of a mapping. Raises DictionaryError if anything else is in it."""
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise DictionaryError(f"{file}: {name} is a {type(value).__name__}, not a tensor")
    return dict(content)


def take(weights: dict[str, Tensor], file: Path, *names: str) -> list[Tensor]:
    """Remove tensors by name and return them. Raises DictionaryError if one is missing or has no floating-point type."""
    missing = [name for name in names if name not in weights]
    if missing:
        listed = ", ".join(f"{name} is missing" for name in missing)
        raise DictionaryError(f"{file}: {listed}; what it has is {', '.join(list(weights)[:8]) or 'nothing'}")
    return [check_floating(name, weights.pop(name), file) for name in names]


def check_floating(name: str, weight: Tensor, file: Path) -> Tensor:
    """Return weights that hold floating-point numbers; raise DictionaryError for quantized and complex ones."""
    if not weight.is_floating_point():
        kind = str(weight.dtype).removeprefix("torch.")
        raise DictionaryError(
            f"{file}: {name} holds {kind}, not floating-point numbers, and nothing here turns them into weights: save it as "
            "float32 with what made it"
        )
    return weight


def count(value: object, name: str, origin: object) -> int:
    """Return a number as it stands in a file. Raises DictionaryError unless it is whole and at least 1."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        what = f"it has no {name}" if value is None else f"{name}={value!r} is no whole number of at least 1"
        raise DictionaryError(f"{origin}: {what}")
    return value


def flag(value: object, name: str, origin: object) -> bool:
    """Return a flag as it stands in a file. Raises DictionaryError unless it is true or false."""
    if not isinstance(value, bool):
        raise DictionaryError(f"{origin}: {name}={value!r} is neither true nor false")
    return value


def refuse(config: Mapping[str, Any], origin: object, **allowed: tuple[object, ...]) -> None:
    """Raise DictionaryError if a field has none of the values that can be honored; a missing field has the first."""
    for name, values in allowed.items():
        if (value := config.get(name, values[0])) not in values:
            known = " or ".join(map(repr, values))
            raise DictionaryError(f"{origin}: {name}={value!r} has no counterpart here, only {known} has")
