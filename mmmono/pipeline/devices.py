"""The device on which encoders and dictionaries run (`device=`)."""

from __future__ import annotations

import torch

from mmmono.core.errors import ConfigError

FIRST_GPU = "cuda:0"


def named_device(name: str) -> str:
    """Return the device of a name; `auto` is a GPU if there is one. Raises ConfigError if there is no such device.

    A GPU has its index: `cuda` alone would be whichever the thread that asks has as its current one, and a training on
    another GPU changes that.
    """
    if name == "auto":
        return FIRST_GPU if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device={name} is no device: choose auto, cpu, cuda or cuda:<index>") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={name}, but PyTorch sees no GPU here: set device=cpu or device=auto")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise ConfigError(f"device={name}, but PyTorch sees only {torch.cuda.device_count()} GPUs here, from cuda:0 on")
    return FIRST_GPU if name == "cuda" else name


def several_devices(device: str, count: int) -> list[str]:
    """Return the devices of so many processes: the first GPUs, all with −1, or one CPU several times.

    Raises:
        ConfigError: there are not as many GPUs, or one is named that is not the first.
    """
    kind = torch.device(device)
    if kind.type != "cuda":
        if count == -1:
            raise ConfigError(f"extraction.devices=-1 means all GPUs, but device={device}: give a number of processes")
        return [device] * count
    if device not in ("cuda", FIRST_GPU):
        raise ConfigError(f"extraction.devices={count} with device={device}: set device=cuda, or leave one of them out")
    there = torch.cuda.device_count()
    if count > there:
        raise ConfigError(f"extraction.devices={count}, but PyTorch sees only {there} GPUs here")
    return [f"cuda:{index}" for index in range(there if count == -1 else count)]
