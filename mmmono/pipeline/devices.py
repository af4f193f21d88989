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


def several_devices(device: str, count: int) -> list[str]:
    """Return the devices of so many processes: the first GPUs, all with −1, or one CPU several times.

    Raises:
        ConfigError: there are not as many GPUs, or a single one is named.
    """
    kind = torch.device(device)
    if kind.type != "cuda":
        if count == -1:
            raise ConfigError(f"extraction.devices=-1 means all GPUs, but device={device}: give a number of processes")
        return [device] * count
    if kind.index is not None:
        raise ConfigError(f"extraction.devices={count} with device={device}: set device=cuda, or leave one of them out")
    there = torch.cuda.device_count()
    if count > there:
        raise ConfigError(f"extraction.devices={count}, but PyTorch sees only {there} GPUs here")
    return [f"cuda:{index}" for index in range(there if count == -1 else count)]
