"""Trainer options (`trainer=`): check settings before reading data, and determine hardware and processes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch

from mmmono.core.errors import ConfigError
from mmmono.core.process_group import Place, place_of_this_process
from mmmono.core.text import message_of
from mmmono.pipeline.trainer_checks import bound, check_values, try_options

AUTOMATIC = (None, "auto")  # values of `trainer.precision` that leave it to mmmono
LARGE = 1 << 20  # weights of a product from which on a CPU with instructions for bfloat16 is faster with them
ENDLESS = 10**12  # batches of an epoch of data that nobody has
PRECISIONS = {  # Lightning's names, by name and by short form
    "32": "32-true", "32-true": "32-true", "64": "64-true", "64-true": "64-true", "bf16-true": "bf16-true",
    "16": "16-mixed", "16-mixed": "16-mixed", "bf16": "bf16-mixed", "bf16-mixed": "bf16-mixed",
}  # fmt: skip
HARDWARE = ("accelerator", "devices", "num_nodes", "strategy", "precision")
# Arguments that this package sets itself.
OWN = (
    "logger", "callbacks", "plugins", "default_root_dir", "enable_progress_bar", "enable_model_summary",
    "enable_checkpointing", "num_sanity_val_steps", "use_distributed_sampler",
)  # fmt: skip
# Options that do not change the weights.
NEUTRAL_OPTIONS = ("log_every_n_steps", "profiler", "detect_anomaly")
GPU = {"gpu": "cuda", "cuda": "cuda", "mps": "mps", "cpu": "cpu"}


@dataclass(frozen=True)
class Layout:
    """Hardware and processes of a training.

    Attributes:
        accelerator: `cpu`, `cuda` or `mps`.
        devices: devices per machine, as Lightning takes them.
        nodes: number of machines as Lightning sees them.
        processes: number of processes on all machines.
        place: rank of this process if torchrun or srun started several; else None.
    """

    accelerator: str
    devices: int | list[int]
    nodes: int
    processes: int
    place: Place | None

    @property
    def backend(self) -> str:
        """Backend of `torch.distributed`."""
        return "nccl" if self.accelerator == "cuda" else "gloo"


@dataclass(frozen=True)
class TrainerSettings:
    """`trainer.*` after checks.

    Attributes:
        target: import path of the Lightning trainer class.
        options: arguments of the trainer, except those that this package sets.
        precision: Lightning's name of the precision, with `auto` resolved.
        automatic: whether the precision was `auto`, and so may follow what is trained.
        tf32: whether float32 matrix products may use TF32 on a GPU.
        max_time: time limit of one run of the training; None for no limit.
        layout: hardware and processes; None if this machine lacks the requested hardware.
        missing: error message about the missing hardware; empty if there is none.
    """

    target: str
    options: Mapping[str, Any]
    precision: str
    tf32: bool
    max_time: timedelta | None
    layout: Layout | None
    missing: str = ""
    automatic: bool = False

    def suited_to(self, parameters: int) -> TrainerSettings:
        """Return the settings for a dictionary whose products have this many weights and take bfloat16 without a loss.

        Where the precision is automatic, a CPU with instructions for bfloat16 products uses them from `LARGE` weights on:
        below, they are hardly faster (`benchmarks/train_sae.py`).
        """
        on_cpu = self.layout is not None and self.layout.accelerator == "cpu"
        if self.automatic and on_cpu and parameters >= LARGE and torch.cpu._is_avx512_bf16_supported():
            return replace(self, precision="bf16-mixed")
        return self

    def here(self) -> Layout:
        """Return the layout. Raises ConfigError if this machine lacks the requested hardware."""
        if self.layout is None:
            raise ConfigError(self.missing)
        return self.layout

    def recipe(self) -> dict[str, Any]:
        """Settings that change the weights; the hardware and the number of processes do not."""
        kept = {key: value for key, value in self.options.items() if key not in NEUTRAL_OPTIONS}
        return {**kept, "precision": self.precision}

    def precision_arguments(self) -> dict[str, Any]:
        """Arguments of Lightning's Trainer that set the precision; float16 on a CPU needs a plugin."""
        if self.precision == "16-mixed" and self.here().accelerator == "cpu":
            from lightning.pytorch.plugins import MixedPrecision

            return {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))]}
        return {"precision": self.precision}

    def check_length(self, batches: int) -> None:
        """Check that training does not end before its first validation.

        Args:
            batches: number of batches per epoch.

        Raises:
            ConfigError: training would end too early, or has no batch or no validation in an epoch.
        """
        options = self.options
        limit, interval = options.get("limit_train_batches"), options.get("val_check_interval")
        if limit is not None:
            batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        if batches < 1:
            raise ConfigError(f"trainer.limit_train_batches={limit} leaves no batch of an epoch: raise it")
        accumulate = options.get("accumulate_grad_batches") or 1
        steps, epochs = bound(options.get("max_steps")), bound(options.get("max_epochs"))
        last = min(steps * accumulate, epochs * batches)
        end = f"max_steps={options.get('max_steps')}" if steps * accumulate <= last else f"max_epochs={epochs}"
        every = options.get("check_val_every_n_epoch", 1)
        if every is not None:
            if isinstance(interval, int) and interval > batches:
                raise ConfigError(
                    f"trainer.val_check_interval={interval} is more than the {batches} batches of an epoch: lower it, or "
                    "set trainer.check_val_every_n_epoch=null to count batches across epochs"
                )
            within = interval if isinstance(interval, int) else int(batches * (1.0 if interval is None else interval))
            if within < 1:
                raise ConfigError(f"trainer.val_check_interval={interval} of {batches} batches is none: raise it")
            first = (every - 1) * batches + within
        else:
            first = interval
        if last < first:
            raise ConfigError(
                f"trainer.{end} ends before the first validation at trainer.val_check_interval={interval}: "
                "raise the one or lower the other"
            )


def read_trainer(trainer: Mapping[str, Any]) -> TrainerSettings:
    """Check `trainer.*` and determine hardware and precision on this machine.

    Raises:
        ConfigError: a setting is invalid; missing hardware is reported by `TrainerSettings.here` instead.
    """
    check_values(trainer)
    layout, missing = None, ""
    try:
        layout = _layout(trainer)
    except _Missing as error:
        missing = str(error)
    precision, tf32 = _precision(trainer.get("precision"), layout)
    left_out = ("_target_", "max_time", *HARDWARE, *OWN)
    options = {key: _whole(value) for key, value in trainer.items() if key not in left_out}
    try_options(options)
    target = trainer.get("_target_", "lightning.Trainer")
    automatic = trainer.get("precision") in AUTOMATIC
    settings = TrainerSettings(
        target, options, precision, tf32, _duration(trainer.get("max_time")), layout, missing, automatic
    )
    if options.get("check_val_every_n_epoch", 1) is None:  # what fails whatever the data, before features are extracted
        settings.check_length(ENDLESS)
    return settings


class _Missing(ConfigError):
    """This machine lacks the requested hardware; another machine may have it."""


def _layout(trainer: Mapping[str, Any]) -> Layout:
    accelerator = _accelerator(trainer.get("accelerator", "auto"))
    strategy = str(trainer.get("strategy", "auto"))
    if strategy != "auto" and not strategy.startswith("ddp"):
        raise ConfigError(f"trainer.strategy={strategy} is not one for dictionaries: choose auto or ddp")
    devices, nodes = _devices(accelerator, trainer.get("devices", 1)), trainer.get("num_nodes") or 1
    count = len(devices) if isinstance(devices, list) else devices
    place = place_of_this_process()
    if place is None:
        if nodes > 1:
            raise ConfigError(
                f"trainer.num_nodes={nodes} needs processes on each machine: start them with torchrun or srun"
            )
        return Layout(accelerator, devices, 1, count, None)
    if count * nodes == 1:  # the defaults: use all started processes
        devices, count, nodes = place.local_size, place.local_size, place.nodes
    if (count, nodes) != (place.local_size, place.nodes):
        raise ConfigError(
            f"trainer.devices={count} and trainer.num_nodes={nodes} are not what {place.starter} has started: set "
            f"trainer.devices={place.local_size} trainer.num_nodes={place.nodes}"
        )
    if accelerator == "cuda" and torch.cuda.device_count() < place.local_size:  # srun shows each process its own GPU
        devices, nodes = 1, place.world_size
    return Layout(accelerator, devices, nodes, place.world_size, place)


def _accelerator(requested: str) -> str:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if requested == "auto":
        return next(name for name, available in there.items() if available)
    if requested not in GPU:
        raise ConfigError(f"trainer.accelerator={requested} is none of auto, cpu, gpu, cuda, mps")
    name = "mps" if requested == "gpu" and there["mps"] and not there["cuda"] else GPU[requested]
    if not there[name]:
        raise _Missing(
            f"trainer.accelerator={requested}, but PyTorch sees no GPU here: choose trainer=cpu, or trainer=auto, which "
            "takes whatever is there"
        )
    return name


def _devices(accelerator: str, requested: Any) -> int | list[int]:
    requested = int(requested) if isinstance(requested, str) and re.fullmatch(r"-?\d+", requested) else requested
    if accelerator == "cuda":
        from lightning.pytorch.accelerators import CUDAAccelerator
        from lightning.pytorch.utilities.exceptions import MisconfigurationException

        try:
            return list(
                CUDAAccelerator.parse_devices(CUDAAccelerator.auto_device_count() if requested == "auto" else requested)
            )
        except (MisconfigurationException, TypeError, ValueError) as error:
            raise ConfigError(f"trainer.devices={requested}: {message_of(error, 300)}") from error
    if requested in ("auto", -1):
        return 1
    if not isinstance(requested, int) or isinstance(requested, bool) or requested < 1:
        raise ConfigError(f"trainer.devices={requested} is no number of processes: give 1 or more")
    return requested


def _precision(requested: Any, layout: Layout | None) -> tuple[str, bool]:
    """Lightning's name of the precision, and whether TF32 may replace float32."""
    on_gpu = layout is not None and layout.accelerator == "cuda"
    if requested in AUTOMATIC:
        half = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16-mixed" if half else "32-true"), on_gpu
    if str(requested) == "16-true":
        raise ConfigError(
            "trainer.precision=16-true cannot train: squares of gradients, which Adam keeps, are below float16's "
            "smallest number; choose 16-mixed or bf16-true"
        )
    if str(requested) not in PRECISIONS:
        known = ", ".join(dict.fromkeys(PRECISIONS.values()))
        raise ConfigError(f"trainer.precision={requested} is none of auto, {known}")
    precision = PRECISIONS[str(requested)]
    return precision, on_gpu and precision.endswith("mixed")


def _whole(value: Any) -> Any:
    """Turn a float such as 1e3 into an int; shares of at most 1.0 stay floats."""
    return int(value) if isinstance(value, float) and value > 1 and value.is_integer() else value


def _duration(text: Any) -> timedelta | None:
    if text is None:
        return None
    if isinstance(text, Mapping) and set(text) <= {"days", "hours", "minutes", "seconds", "weeks"}:
        duration = timedelta(**{str(unit): float(count) for unit, count in text.items()})
    elif isinstance(text, str) and (match := re.fullmatch(r"(\d+):(\d\d?):(\d\d?):(\d\d?)", text)):
        days, hours, minutes, seconds = (int(part) for part in match.groups())
        duration = timedelta(days, seconds, hours=hours, minutes=minutes)
    else:
        raise ConfigError(
            f"trainer.max_time={text} is no duration: give days:hours:minutes:seconds such as 00:02:30:00"
        )
    if duration <= timedelta(0):
        raise ConfigError(f"trainer.max_time={text} leaves no time: give more")
    return duration
