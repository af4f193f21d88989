"""Load and check diffusers pipelines from the hub or a folder, and report lack of memory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmmono.case_studies.same_weights import same_weights
from mmmono.core.errors import ConfigError, ModelError
from mmmono.core.extras import need
from mmmono.core.gpu_memory import enough_gpu_memory
from mmmono.vlm.hub import download, hub_or_cache, hub_reason

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
INDEX = "model_index.json"
LESS = "set generator.cpu_offload=true, generator.dtype=float16, or a smaller generator.height and generator.width"


@dataclass(kw_only=True, frozen=True)
class PipelineSettings:
    """Settings that all diffusers pipelines share.

    Attributes:
        weights: hub id or folder.
        dtype: type of the weights: float32, float16 or bfloat16.
        cpu_offload: keep only the active part of the pipeline on the GPU.
        steps: number of denoising steps.
        guidance_scale: weight of the conditioning against none (classifier-free guidance).
        height, width: size of the images in pixels; None for the pipeline's default.
    """

    weights: str
    dtype: str = "float32"
    cpu_offload: bool = False
    steps: int
    guidance_scale: float
    height: int | None = None
    width: int | None = None

    def options(self) -> dict[str, Any]:
        """Arguments of each call of the pipeline."""
        return {
            "num_inference_steps": self.steps, "guidance_scale": self.guidance_scale, "height": self.height,
            "width": self.width,
        }  # fmt: skip


def check_pipeline(weights: str, pipeline_class: str) -> None:
    """Check the class of a pipeline by its index file alone, before long computations start.

    Args:
        weights: hub id, or folder of a local copy.
        pipeline_class: name of the diffusers class that the index must name.

    Raises:
        ModelError: the pipeline does not exist, is not available, or has another class.
    """
    made_for = _configuration(weights, INDEX).get("_class_name")
    if made_for != pipeline_class:
        raise ModelError(
            f"generator.weights={weights} is a {made_for}, not a {pipeline_class}: give the weights of one, or choose the "
            "generator= option that is made for it"
        )


def check_width(weights: str, part: str, key: str, width: int | None) -> None:
    """Raise ModelError if the value of `key` in a part's configuration differs from `width`; None skips the check."""
    found = _configuration(weights, f"{part}/config.json").get(key)
    if width is not None and found != width:
        raise ModelError(
            f"generator.weights={weights} has a {part} with {key}={found}, the chosen model {width}: it was trained with "
            "another encoder; give weights that were trained with this one, or choose the model= that belongs to it"
        )


def _configuration(weights: str, file: str) -> dict[str, Any]:
    """Read a JSON file of a pipeline from its folder, the hub's cache or the hub."""
    give = "give the folder of a local copy, generator.weights=/path/to/folder"
    folder = Path(weights)
    if folder.is_dir():
        if not (folder / file).is_file():
            raise ModelError(f"generator.weights={weights} has no {file}, so it is no diffusers pipeline: {give}")
        path = folder / file
    elif folder.is_absolute() or weights.count("/") != 1:
        raise ModelError(f"generator.weights={weights} is no folder, and no id on the hub: {give}")
    else:
        try:
            path = download(weights, [file])
        except ModelError as error:
            raise ModelError(f"generator.weights={weights}: {error}; or {give}") from error
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"generator.weights={weights}: {file} is no JSON ({error}): {give}") from error
    return content if isinstance(content, dict) else {}


def check_settings(dtype: str, cpu_offload: bool, device: str) -> None:
    """Raise ConfigError if `dtype` is unknown, or `cpu_offload` is set without a GPU."""
    if dtype not in DTYPES:
        raise ConfigError(f"generator.dtype={dtype} is none of {', '.join(DTYPES)}")
    if cpu_offload and not device.startswith("cuda"):
        raise ConfigError(
            f"generator.cpu_offload=true moves models from a GPU to the CPU, but device={device}: drop it"
        )


def load_pipeline(kind: str, settings: PipelineSettings, device: str) -> Any:
    """Load a pipeline onto a device.

    Args:
        kind: name of its diffusers class.
        settings: its weights, their type, and whether they are offloaded to the CPU.
        device: device to compute on.

    Raises:
        ConfigError: diffusers is not installed, or the GPU runs out of memory.
        ModelError: the weights cannot be loaded or belong to another class.
    """
    need(f"diffusers' {kind}", "diffusers")
    check_pipeline(settings.weights, kind)  # diffusers would load the parts that both classes share
    import diffusers

    try:
        with hub_or_cache():
            pipeline = getattr(diffusers, kind).from_pretrained(settings.weights, torch_dtype=DTYPES[settings.dtype])
    except Exception as error:  # diffusers passes on all errors of the hub client and of its loaders
        raise ModelError(
            f"generator.weights={settings.weights} cannot be loaded as {kind} ({hub_reason(error)}): check its name and "
            "the network, or give the folder of a local copy"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    with enough_gpu_memory(LESS):
        if settings.cpu_offload:
            pipeline.enable_model_cpu_offload(device=device)
            return pipeline
        return pipeline.to(device)


def check_same_weights(own: Tensor, encoders: Tensor, weights: str, model: str) -> None:
    """Raise ModelError unless a weight matrix of the generator's encoder equals that of the chosen model within 1 %."""
    if not same_weights(own, encoders):
        raise ModelError(
            f"generator.weights={weights} was not trained with the encoder of model={model}: their weights differ, so the "
            "partition says nothing about it; choose the checkpoint that the generator was trained with"
        )


def initial_noise(seed: int) -> torch.Generator:
    """Return a seeded generator on the CPU, which gives the same noise for every device."""
    return torch.Generator("cpu").manual_seed(seed)
