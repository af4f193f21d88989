"""Checks of `trainer.*` before anything is trained: ours, and Lightning's own."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from mmmono.core.errors import ConfigError
from mmmono.core.text import message_of

# Options whose numbers of these types are all checked here, so that commands that train nothing need not import Lightning.
CHECKED: dict[str, tuple[type, ...]] = {
    "max_steps": (int,), "max_epochs": (int,), "min_steps": (int,), "check_val_every_n_epoch": (int,),
    "log_every_n_steps": (int,), "val_check_interval": (int,), "gradient_clip_val": (int, float),
}  # fmt: skip


def check_values(trainer: Mapping[str, Any]) -> None:
    """Check settings that Lightning accepts but that fail after hours or give no usable dictionary."""
    if trainer.get("fast_dev_run"):
        raise ConfigError(
            "trainer.fast_dev_run makes no dictionary: for a quick trial set trainer.max_steps=20 trainer.min_steps=0 "
            "trainer.val_check_interval=10"
        )
    if trainer.get("overfit_batches"):
        raise ConfigError(
            "trainer.overfit_batches would validate on training pairs: set dataset.limit to take few pairs"
        )
    for key in ("limit_train_batches", "limit_val_batches"):
        if (limit := trainer.get(key)) is not None and not (_is_number(limit) and limit > 0):
            what = "when to stop is decided by validation" if "val" in key else "nothing would be trained"
            raise ConfigError(f"trainer.{key}={limit} leaves none, but {what}: give a number above 0")
    for key in ("accumulate_grad_batches", "log_every_n_steps", "num_nodes", "check_val_every_n_epoch"):
        if (value := trainer.get(key)) is not None and not (_is_whole(value) and value >= 1):
            raise ConfigError(f"trainer.{key}={value} must be a whole number of at least 1")
    if (clip := trainer.get("gradient_clip_val")) is not None and not (_is_number(clip) and clip >= 0):
        raise ConfigError(f"trainer.gradient_clip_val={clip} must be a number of at least 0")
    steps, epochs = trainer.get("max_steps"), trainer.get("max_epochs")
    for key, value in (("max_steps", steps), ("max_epochs", epochs)):
        if value is not None and not (_is_whole(value) and (value >= 1 or value == -1)):
            raise ConfigError(f"trainer.{key}={value} must be a whole number of at least 1, or -1 for no such limit")
    if bound(steps) == bound(epochs) == math.inf:
        raise ConfigError(
            f"trainer.max_steps={steps} sets no end, which the learning rate's decay needs: give trainer.max_steps or "
            "+trainer.max_epochs"
        )
    _check_interval(trainer)


def _check_interval(trainer: Mapping[str, Any]) -> None:
    interval, every = trainer.get("val_check_interval"), trainer.get("check_val_every_n_epoch", 1)
    batches = _is_whole(interval) and int(interval or 0) >= 1
    if every is None and not batches:
        raise ConfigError(
            f"trainer.val_check_interval={interval} must be a whole number of batches of at least 1; for a share of an "
            "epoch set trainer.check_val_every_n_epoch=1 too"
        )
    if every is not None and interval is not None:
        share = isinstance(interval, float) and 0 < interval <= 1
        if not (share or batches):
            raise ConfigError(
                f"trainer.val_check_interval={interval} must be a share of an epoch between 0 and 1.0, or a whole number "
                "of batches"
            )


def try_options(options: Mapping[str, Any]) -> None:
    """Let Lightning check the other options. Raises ConfigError with Lightning's message."""
    if all(key in CHECKED and (value is None or type(value) in CHECKED[key]) for key, value in options.items()):
        return
    import lightning as L
    from lightning.fabric.plugins.environments import LightningEnvironment
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # do not print the hardware
    alone = LightningEnvironment()  # ignore the launcher that started this process
    try:
        L.Trainer(
            accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            plugins=[alone], **options,
        )  # fmt: skip
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise ConfigError(f"trainer: {message_of(error, 300)}") from error


def bound(limit: Any) -> float:
    """Return a limit as a number, infinity for none."""
    return math.inf if limit is None or limit == -1 else limit


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value) and value % 1 == 0
