"""Reads weights from checkpoint files: tensors only, unwrapped, renamed and compared with a model's weights."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mmmono.core.errors import ModelError
from mmmono.core.text import message_of

# Keys under which trainers store the weights, in order of preference.
WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "module",
    "weights",
    "params",
)
# Name components that compilation and sharding insert at any position; parallel training inserts `module`.
_INSERTED = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# OpenAI's files store these numbers among the weights.
_NUMBERS = {"input_resolution", "context_length", "vocab_size"}
_PICKLED = (b"PK\x03\x04", b"\x80")


def read_state_dict(path: Path, what: str, device: str = "cpu") -> dict[str, Tensor]:
    """Read the weights of a safetensors or PyTorch checkpoint, out of the usual wrappers; unpickles tensors only.

    Args:
        path: the file.
        what: its name in errors, such as `model.pretrained=/a/file`.
        device: of the tensors; `meta` keeps only their shapes.

    Raises:
        ModelError: the file is empty, a git-lfs pointer, cut off, not a checkpoint, or holds more than tensors.
    """
    _check_content(path, what)
    try:
        if _is_safetensors(path):
            content: Any = {name: weight.to(device) for name, weight in load_file(path).items()}
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # problems are raised as errors
                content = torch.load(path, map_location=device, weights_only=True)
    except SafetensorError as error:
        raise ModelError(f"{what} is no whole safetensors file ({message_of(error)}): fetch it again") from error
    except Exception as error:  # PyTorch's reader raises errors of any type for broken files
        raise ModelError(_why_unreadable(path, what, error)) from error
    return _unwrapped(content, what)


def strip_prefixes(state: Mapping[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """Remove what trainers add to the names of weights.

    Args:
        state: weights by name.
        expected: the model's weight names.

    Returns:
        The weights with `module.`, `_orig_mod.` and the like removed. If no name then matches the model's and there is
        exactly one prefix before `logit_scale`, which every CLIP-like model has, only the weights under that prefix.
    """
    modules = any("module" in name.split(".") for name in expected)
    cleaned = {drop_inserted(name, modules): weight for name, weight in state.items()}
    if cleaned.keys() & set(expected):
        return cleaned
    prefixes = {name.removesuffix("logit_scale") for name in cleaned if name.endswith(".logit_scale")}
    if len(prefixes) != 1:
        return cleaned
    prefix = prefixes.pop()
    return {name.removeprefix(prefix): w for name, w in cleaned.items() if name.startswith(prefix)}


def drop_inserted(name: str, keep_module: bool = False) -> str:
    """Remove the components that parallel training, compilation and sharding insert into a weight's name."""
    inserted = _INSERTED if keep_module else {*_INSERTED, "module"}
    return ".".join(part for part in name.split(".") if part not in inserted)


def misfit(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], most: int = 3) -> str | None:
    """Describe missing, unknown and wrongly shaped weights, each with up to `most` examples; None if all fit."""
    shapes = [
        f"{key} {tuple(state[key].shape)}, not {tuple(expected[key].shape)}"
        for key in state.keys() & expected.keys()
        if state[key].shape != expected[key].shape
    ]
    problems = [
        *_listed("missing", expected.keys() - state.keys(), most),
        *_listed("unknown", state.keys() - expected.keys(), most),
        *_listed("of another shape", shapes, most),
    ]
    return "; ".join(problems) or None


def not_finite(state: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first weight with NaN or infinity, or None.

    The logit scale and bias are not checked, since embeddings do not depend on them.
    """
    for name, weight in state.items():
        if name.startswith(("logit_scale", "logit_bias")) or not weight.is_floating_point():
            continue
        if not torch.isfinite(weight.sum(dtype=torch.float64)) and not torch.isfinite(weight).all():
            return name
    return None


def _check_content(path: Path, what: str) -> None:
    """Raise ModelError with the reason if the file's first bytes show that it cannot be a checkpoint."""
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError as error:
        raise ModelError(f"{what} cannot be read ({error.strerror})") from error
    if not head:
        raise ModelError(f"{what} is an empty file: fetch it again")
    if head.startswith(b"version https://git-lfs"):
        raise ModelError(f"{what} is a git-lfs pointer, not the weights: run 'git lfs pull' where it was cloned")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ModelError(f"{what} is a web page, not the weights: fetch the file itself")
    if path.suffix != ".safetensors" and not head.startswith(_PICKLED) and not _is_safetensors(path):
        raise ModelError(f"{what} is no checkpoint: neither PyTorch nor safetensors wrote it")


def _is_safetensors(path: Path) -> bool:
    """Whether the file's suffix or its header (eight bytes of length, then JSON) is that of safetensors."""
    if path.suffix == ".safetensors":
        return True
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def _why_unreadable(path: Path, what: str, error: Exception) -> str:
    message = str(error)
    if "TorchScript" in message:
        convert = "torch.save(torch.jit.load(path, map_location='cpu').state_dict(), new_path)"
        return f"{what} is a TorchScript archive, which is not run here: convert it once with {convert}"
    if isinstance(error, pickle.UnpicklingError) and "nsupported" in message and "operand" not in message:
        convert = "torch.save(torch.load(path, map_location='cpu', weights_only=False)['state_dict'], new_path)"
        return (
            f"{what} holds more than tensors, which are not unpickled: if you trust it, convert it once with {convert}"
        )
    if isinstance(error, MemoryError):
        return f"{what} does not fit into memory ({path.stat().st_size / 1e9:.1f} GB)"
    return f"{what} is broken or cut off ({message_of(error)}): fetch it again"


def _unwrapped(content: Any, what: str) -> dict[str, Tensor]:
    """Return the mapping of names to tensors from inside the wrappers of a checkpoint."""
    while isinstance(content, Mapping) and not any(isinstance(value, Tensor) for value in content.values()):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        raise ModelError(
            f"{what} holds no weights under 'model', 'state_dict' or at its top: it is a {type(content).__name__}"
        )
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor) and key not in _NUMBERS}
    if not state:
        keys = ", ".join(sorted(map(str, content))[:6])
        raise ModelError(f"{what} holds no weights: {f'it has {keys}' if keys else 'it is an empty mapping'}")
    return state


def _listed(kind: str, keys: Iterable[str], most: int) -> list[str]:
    ordered = sorted(keys)
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return [f"{kind}: {', '.join(ordered[:most])}{more}"] if ordered else []
