"""API keys and tokens that the selected options need, and whether they are set; loads no model library."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig


@dataclass(frozen=True)
class Key:
    """An API key or token that an option needs.

    Attributes:
        name: environment variable of the key.
        purpose: what needs the key.
        there: whether the key is set or stored; its validity is not checked.
        remedy: how to set it.
    """

    name: str
    purpose: str
    there: bool
    remedy: str

    def __str__(self) -> str:
        return f"{self.name} for {self.purpose}: " + ("there" if self.there else f"missing, {self.remedy}")


def needed_keys(cfg: DictConfig) -> Iterator[Key]:
    """Yield the keys that a configuration needs."""
    dataset = cfg.get("dataset") or {}
    if str(dataset.get("_target_")).endswith("CC3M") and dataset.get("root") is None:
        yield Key(
            "HF_TOKEN", "CC3M's shards on the hub", hub_token_there(),
            "set HF_TOKEN or run 'hf auth login', or give a local copy with dataset.root=/path",
        )  # fmt: skip
    variable = (cfg.get("judge") or {}).get("key_variable")
    judged = not str((cfg.get("victim") or {}).get("_target_")).endswith("ClipZeroShot")  # it needs no judge
    if variable and judged:
        yield Key(variable, "the judge", bool(os.environ.get(variable)), "set it, or leave judge= out")
    if str((cfg.get("logger") or {}).get("_target_")).endswith("WandB"):
        yield Key(
            "WANDB_API_KEY", "logger=wandb", wandb_there(), "run 'wandb login', or set WANDB_MODE=offline"
        )  # fmt: skip


def hub_token_there() -> bool:
    """Whether the hub's client finds a token, in HF_TOKEN or in a stored login."""
    from huggingface_hub import get_token

    return bool(get_token())


def wandb_there() -> bool:
    """Whether W&B is offline and needs no key, or has a key in WANDB_API_KEY or netrc."""
    if os.environ.get("WANDB_MODE", "online") != "online" or os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").partition("://")[2].split("/")[0].split(":")[0]
    file = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return host in file.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
