"""The device on which encoders and dictionaries run (`device=`)."""

from __future__ import annotations

import torch

from mmmono.core.errors import ConfigError


def named_device(name: str) -> str:
    """Return the device of a name; `auto` is a GPU if there is one. Raises ConfigError if there is no such device."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device={name} is no device: choose auto, cpu, cuda or cuda:<index>") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={name}, but PyTorch sees no GPU here: set device=cpu or device=auto")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise ConfigError(f"device={name}, but PyTorch sees only {torch.cuda.device_count()} GPUs here, from cuda:0 on")
    return name
