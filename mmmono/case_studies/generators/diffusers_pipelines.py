"""Loading of diffusers' pipelines, from the hub or a folder, and what to do where memory is short."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, try_to_load_from_cache
from torch import Tensor

from mmmono.core.errors import ConfigError, ModelError
from mmmono.vlm.hub import hub_or_cache, hub_reason

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
INDEX = "model_index.json"


def check_weights(weights: str) -> None:
    """Raise ModelError unless the pipeline is in a folder, in the hub's cache, or can be asked of the hub.

    Nothing is loaded, so that this can be asked before heavy work.
    """
    give = "give the folder of a local copy, generator.weights=/path/to/folder"
    if Path(weights).is_dir():
        if not (Path(weights) / INDEX).is_file():
            raise ModelError(f"generator.weights={weights} has no {INDEX}, so it is no diffusers pipeline: {give}")
        return
    if Path(weights).is_absolute() or weights.count("/") != 1:
        raise ModelError(f"generator.weights={weights} is no folder, and no id on the hub: {give}")
    with hub_or_cache():
        reachable = not constants.HF_HUB_OFFLINE
    if not reachable and not isinstance(try_to_load_from_cache(weights, INDEX), str):
        raise ModelError(
            f"generator.weights={weights} is not in the hub's cache, and the hub cannot be reached: where there is a "
            f"network run 'hf download {weights}', and {give}"
        )


def check_settings(dtype: str, cpu_offload: bool, device: str) -> None:
    """Raise ConfigError on settings that cannot work."""
    if dtype not in DTYPES:
        raise ConfigError(f"generator.dtype={dtype} is none of {', '.join(DTYPES)}")
    if cpu_offload and not device.startswith("cuda"):
        raise ConfigError(
            f"generator.cpu_offload=true moves models from a GPU to the CPU, but device={device}: drop it"
        )


def load_pipeline(kind: type[Any], weights: str, dtype: str, device: str, cpu_offload: bool) -> Any:
    """A pipeline ready to run.

    Raises:
        ModelError: the weights cannot be had or are another pipeline's, or the GPU has too little memory.
    """
    try:
        with hub_or_cache():
            made_for = kind.load_config(weights)["_class_name"]
            if made_for != kind.__name__:  # diffusers would load the parts that both have
                raise ValueError(f"it is a {made_for}")
            pipeline = kind.from_pretrained(weights, torch_dtype=DTYPES[dtype])
    except Exception as error:  # diffusers passes on whatever the hub's client and its parts' loaders raise
        raise ModelError(
            f"generator.weights={weights} cannot be loaded as {kind.__name__} ({hub_reason(error)}): check its name and "
            "the network, or give the folder of a local copy"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    with enough_memory(device):
        if cpu_offload:
            pipeline.enable_model_cpu_offload(device=device)
            return pipeline
        return pipeline.to(device)


@contextmanager
def enough_memory(device: str) -> Iterator[None]:
    """Within this block a GPU's lack of memory is told with its remedies."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{device} has too little memory for the generator: set generator.cpu_offload=true, generator.dtype=float16, or "
            "a smaller generator.height and generator.width"
        ) from error


def check_same_weights(own: Tensor, encoders: Tensor, weights: str, model: str) -> None:
    """Raise ModelError unless a matrix of the generator's encoder is, to half precision, that of the chosen model."""
    own, encoders = own.detach().float().cpu(), encoders.detach().float().cpu()
    if own.shape != encoders.shape or (own - encoders).norm() > 0.01 * encoders.norm():
        raise ModelError(
            f"generator.weights={weights} was not trained with the encoder of model={model}: their weights differ, so the "
            "partition says nothing about it; choose the checkpoint that the generator was trained with"
        )


def initial_noise(seed: int) -> torch.Generator:
    """Noise that is the same on every device."""
    return torch.Generator("cpu").manual_seed(seed)
