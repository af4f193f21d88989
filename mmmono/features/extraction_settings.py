"""Settings of reading pairs and encoding them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from mmmono.core.errors import ConfigError
from mmmono.features.losses import Allowance

PRECISIONS: dict[str, torch.dtype | None] = {"32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
STORED_TYPES = ("float16", "float32")
RESIZERS = ("pillow", "torch")


@dataclass(frozen=True)
class ExtractionSettings:
    """Settings of reading and encoding.

    Args:
        batch_size: pairs per forward pass; by default 256 on a GPU and 32 on a CPU, whose caches hold no more.
        workers: processes that read and decode; by default all cores but one for a GPU, and none for a CPU, whose cores
            the encoders keep busy.
        precision: `32`, or autocast to `fp16` or `bf16`.
        dtype: stored type, `float16` or `float32`.
        allowance: maximum loss of unreadable data.
        resize: what resizes images: `pillow`, or `torch`, which is faster and rounds differently.

    Raises:
        ConfigError: a setting is invalid.
    """

    batch_size: int | None = None
    workers: int | None = None
    precision: str = "32"
    dtype: str = "float16"
    allowance: Allowance = field(default_factory=Allowance)
    resize: str = "pillow"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(f"extraction.precision={self.precision} is none of {', '.join(PRECISIONS)}")
        if self.dtype not in STORED_TYPES:
            raise ConfigError(f"extraction.dtype={self.dtype} is none of {', '.join(STORED_TYPES)}")
        if self.resize not in RESIZERS:
            raise ConfigError(f"extraction.resize={self.resize} is none of {', '.join(RESIZERS)}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(
                f"extraction.batch_size={self.batch_size} must be at least 1, or null to choose by the device"
            )
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"extraction.workers={self.workers} must be at least 0, or null to choose by the device")
        if not 0 <= self.allowance.max_skipped <= 1:
            raise ConfigError(f"extraction.max_skipped={self.allowance.max_skipped} is a share: give 0 to 1")
        if self.allowance.max_broken_shards < 0:
            raise ConfigError(f"extraction.max_broken_shards={self.allowance.max_broken_shards} must be at least 0")
