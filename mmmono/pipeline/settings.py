"""Check settings before heavy imports, with one-line errors.

A setting's type is that of its defaults in `conf/`; settings of an option also have those that its class says. This module
also has the limits that hold for all settings of one name, such as `batch_size`. Limits that depend on the data or the model
are checked where these are used.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeGuard

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from mmmono.core.errors import ConfigError
from mmmono.core.shipped import shipped
from mmmono.core.shown import as_typed
from mmmono.pipeline.typed import check_option

CONF = shipped("conf")
FREE = ("trainer.", "hydra.", "logger.")  # checked by Lightning, Hydra and W&B
SEEDS = 2**32  # number of seeds that NumPy accepts
STORED_TYPES = ("float16", "float32")
CENTERS = ("none", "pooled", "per_modality")  # means that are subtracted from embeddings: see `feature_sets.Centered`
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
AT_LEAST = {
    "dataset.limit": 1, "extraction.batch_size": 1, "extraction.workers": 0, "training.batch_size": 1,
    "training.pool_rows": 1, "training.patience": 1, "training.checkpoint_every": 1, "training.snapshot_every": 1,
    "ica.max_iter": 1,
}  # fmt: skip
SHARES = ("extraction.max_skipped",)  # between 0 and 1
NOT_NEGATIVE = ("auxk_coefficient", "input_noise")  # names of numbers that are at least 0
# Names of settings that are counts in every group: non-negative integers.
COUNTS = frozenset(
    {
        "m", "n_draws", "random_pool", "ms_pairs", "images", "texts", "bins", "neighbors", "correlation_pairs", "shown",
        "draws", "top", "min_samples", "steps", "seeds", "n_bootstrap", "pool", "prompt_images", "runs", "count",
        "batch_size", "workers", "pairs", "dim", "folds", "attempts", "repeats", "max_new_tokens", "train_steps", "pixels",
        "components", "width", "height", "depth", "max_pairs", "k", "auxk", "size", "limit", "image_dominant",
        "text_dominant", "min_pairs", "per_class", "n_permutations", "halves", "max_iter",
        "penalty_warmup_steps",
    }
)  # fmt: skip
LOOK_ONLY = frozenset({"plan", "report", "dashboard"})  # entrypoints that need no access to the dataset
REPEATED = frozenset({"logger.tags", "judge.phrases", "adversarial.benign.words"})  # lists that may have duplicates


def check_settings(cfg: DictConfig, job: str) -> None:
    """Check all settings of a configuration.

    Args:
        cfg: the composed configuration.
        job: name of the entrypoint.

    Raises:
        ConfigError: a value is invalid; the message has the setting, its value and the valid values.
    """
    _check_feature_sets(cfg)
    _check_names(cfg)
    _check_removals()
    for key, value in _leaves(cfg):
        if key.startswith(FREE):
            continue
        _check_kind(key, value)
        _check_limits(key, value)
    for key, expression, value in _references(cfg):
        try:
            _check_kind(key, value)
            _check_limits(key, value)
        except ConfigError as error:
            is_text = isinstance(value, str) and expression.startswith("${oc.env:")
            hint = f", which is text: try {key}='${{oc.decode:{expression}}}'" if is_text else ""
            raise ConfigError(f"{error}; it is given as {expression}{hint}") from error
    for group in map(str, cfg):
        node = cfg._get_node(group)
        if isinstance(node, DictConfig) and "_target_" in node and f"{group}." not in FREE:
            check_option(group, node)
    if job not in LOOK_ONLY:
        _check_access(cfg)


def _check_feature_sets(cfg: DictConfig) -> None:
    if ("mds" in cfg or "training" in cfg) and not OmegaConf.select(cfg, "features.sets"):
        raise ConfigError("features=[] chooses no feature set: give some, such as features=sae or features=[raw,sae]")
    for override in HydraConfig.get().overrides.task if HydraConfig.initialized() else ():
        names = re.findall(r"[^\[\], ]+", override.partition("=")[2]) if override.startswith("features=") else []
        if len(set(names)) < len(names):
            raise ConfigError(f"{override} names a feature set twice: give each once")


def _check_names(cfg: DictConfig) -> None:
    """Raise ConfigError for a setting that nothing reads: mistyped after a plus, or in a configuration of the user's own.

    Hydra itself refuses unknown settings only without a plus. What is instantiated knows its own settings. A setting that
    another one refers to is a variable.
    """
    names = {
        f"{section}.{name}"
        for section in _sections() & set(map(str, cfg))
        if isinstance(cfg._get_node(section), DictConfig) and "_target_" not in cfg[section]
        for name in cfg[section]
    }
    if HydraConfig.initialized():
        added = [o.lstrip("+").partition("=")[0] for o in HydraConfig.get().overrides.task if o.startswith("+")]
        groups = HydraConfig.get().runtime.choices
        names |= {key for key in added if not re.search(r"[./@]", key) and key not in groups and key != "force"}
    known = known_settings()
    for key in sorted(names - known):
        if re.search(rf"\$\{{(oc\.select:)?{re.escape(key)}\b", OmegaConf.to_yaml(cfg)):
            continue
        beside = [other for other in (*known, "force") if other.rpartition(".")[0] == key.rpartition(".")[0]]
        close = difflib.get_close_matches(key, beside, n=1, cutoff=0.6)
        raise ConfigError(
            f"no setting is called {key!r}{f', did you mean {close[0]!r}?' if close else ''}; --help lists them all"
        )


def _check_removals() -> None:
    """Raise ConfigError for a setting or group removed with `~` that commands read; entries of mappings may be removed."""
    for override in HydraConfig.get().overrides.task if HydraConfig.initialized() else ():
        key = override[1:].partition("=")[0]
        if not override.startswith("~") or key == "logger" or key.startswith(FREE):
            continue
        if key.count(".") < 2 and key in known_settings():
            raise ConfigError(
                f"{override} removes what this command reads: leave that out, or give another value, {key}=…"
            )


def _check_kind(key: str, value: object) -> None:
    """Check that a value has the type of the setting's defaults; skip null and settings without defaults."""
    kinds = {kind for default in _defaults().get(key, ()) if (kind := _kind(default)) is not None}
    kind = _kind(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key}={value} must be a finite number")
    if key in _groups():
        raise ConfigError(f"{key}={as_typed(value)}: {key} is a group of settings, such as {_groups()[key]}: set those")
    if value is None or len(kinds) != 1 or kind in kinds:
        return
    (expected,) = kinds
    if expected == "text" and kind == "a number":
        return  # e.g. a name such as 32
    example = {"true or false": "", "a number": "", "text": "", "a list": f", such as {key}=[{as_typed(value)}]"}
    raise ConfigError(f"{key}={as_typed(value)} must be {expected}{example[expected]}")


def _check_limits(key: str, value: object) -> None:
    name = key.rpartition(".")[2]
    if name == "seed" or name.endswith("_seed"):
        if not _is_whole(value) or not 0 <= value < SEEDS:
            raise ConfigError(f"{key}={as_typed(value)} must be a whole number from 0 to {SEEDS - 1}")
    elif key in AT_LEAST or (name in COUNTS and _default_is_whole(key)):
        least = AT_LEAST.get(key, 0)
        no_count = value is None or (isinstance(value, str) and key not in AT_LEAST)
        if not no_count and (not _is_whole(value) or value < least):
            raise ConfigError(f"{key}={as_typed(value)} must be a whole number, at least {least}")
    elif name == "train_fraction":
        if not _is_number(value) or not 0 < value < 1:
            raise ConfigError(
                f"{key}={as_typed(value)} must lie between 0 and 1, such as 0.8: neither split may be empty"
            )
    elif name == "select_fraction":
        if not _is_number(value) or not 0 <= value < 1:
            raise ConfigError(f"{key}={as_typed(value)} must be at least 0 and below 1, such as 0.1")
    elif name == "lr":
        if not _is_number(value) or not value > 0:
            raise ConfigError(f"{key}={as_typed(value)} must be a number above 0")
    elif name in NOT_NEGATIVE:
        null = value is None and _defaults().get(key) == [None]
        if not null and (not _is_number(value) or not value >= 0):
            raise ConfigError(f"{key}={as_typed(value)} must be a number, at least 0")
    elif key in SHARES:
        if not _is_number(value) or not 0 <= value <= 1:
            raise ConfigError(f"{key}={as_typed(value)} must lie between 0 and 1")
    elif key == "extraction.dtype" and value not in STORED_TYPES:
        raise ConfigError(f"extraction.dtype={as_typed(value)} cannot be stored: choose {' or '.join(STORED_TYPES)}")
    elif key == "features.center" and value not in CENTERS:
        raise ConfigError(
            f"features.center={as_typed(value)} is none of {', '.join(CENTERS)}; a sparse autoencoder has sae.center instead"
        )
    elif name == "device" and not (isinstance(value, str) and DEVICE.fullmatch(value)):
        raise ConfigError(f"{key}={as_typed(value)} is no device: choose auto, cpu, cuda or cuda:<index>")
    elif isinstance(value, list):
        _check_list(key, value)


def _check_list(key: str, values: list[object]) -> None:
    usual = [default for default in _defaults().get(key, ()) if isinstance(default, list)]
    if not values and usual and all(usual):
        raise ConfigError(f"{key}=[] is empty: give at least one")
    plain = [value for value in values if isinstance(value, str | int | float)]
    twice = next((value for place, value in enumerate(plain) if value in plain[:place]), None)
    if twice is not None and key not in REPEATED:
        raise ConfigError(f"{key} has {twice} twice: give each once")


def _check_access(cfg: DictConfig) -> None:
    """Raise ConfigError if a token is missing that a step would need after long imports."""
    dataset = cfg.get("dataset")
    if dataset is None or not str(dataset.get("_target_", "")).endswith(".CC3M") or dataset.get("root") is not None:
        return
    if os.environ.get("HF_TOKEN"):
        return
    from huggingface_hub import get_token

    if not get_token():
        raise ConfigError(
            "dataset=cc3m streams from a hub that wants a token: set HF_TOKEN, "
            "or give the folder of a local copy with dataset.root=/path"
        )


def _leaves(node: DictConfig, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield settings by full key, with lists as Python lists; skip missing values and interpolations."""
    for name in map(str, node):
        if OmegaConf.is_interpolation(node, name) or OmegaConf.is_missing(node, name):
            continue
        value = node[name]
        key = path + name
        if isinstance(value, DictConfig):
            yield from _leaves(value, f"{key}.")
        elif isinstance(value, ListConfig):
            yield key, OmegaConf.to_container(value)
        else:
            yield key, value


def _references(node: DictConfig, path: str = "") -> Iterator[tuple[str, str, object]]:
    """Yield settings that refer to others or to the environment: full key, what was written, and the value.

    Sections are left out: their settings are checked where they are.
    """
    for name in map(str, node):
        inner, key = node._get_node(name), path + name
        if f"{key}.".startswith(FREE) or OmegaConf.is_missing(node, name):
            continue
        if not OmegaConf.is_interpolation(node, name):
            if isinstance(inner, DictConfig):
                yield from _references(inner, f"{key}.")
            continue
        expression = str(inner._value())  # type: ignore[union-attr]
        value = node[name]
        if not isinstance(value, DictConfig):
            yield key, expression, OmegaConf.to_container(value) if isinstance(value, ListConfig) else value


@cache
def _content(file: Path) -> DictConfig | ListConfig:
    """Content of a file of `conf/`; parsing them all takes a third of a second."""
    return OmegaConf.load(file)


def _files() -> Iterator[tuple[DictConfig, str]]:
    """All files of `conf/`, each with what stands before the names of its settings."""
    for file in sorted(CONF.rglob("*.yaml")):
        content = _content(file)
        if isinstance(content, DictConfig):
            is_global = file.parent == CONF or "@package _global_" in file.read_text(encoding="utf-8")
            yield content, "" if is_global else f"{file.parent.name}."


@cache
def _defaults() -> dict[str, list[object]]:
    """Values of each setting in all files of `conf/`."""
    found: dict[str, list[object]] = {}
    for content, group in _files():
        for key, value in _leaves(content, group):
            found.setdefault(key, []).append(value)
    return found


@cache
def known_settings() -> frozenset[str]:
    """Full keys of the settings in all files of `conf/`, whatever their defaults are, and of their groups."""

    def keys(node: DictConfig, path: str) -> Iterator[str]:
        for name in map(str, node):
            yield path + name
            if isinstance(inner := node._get_node(name), DictConfig):
                yield from keys(inner, f"{path}{name}.")

    return frozenset(key for content, group in _files() for key in keys(content, group)) | frozenset(_groups())


@cache
def _sections() -> frozenset[str]:
    """Groups of settings that are read by name, and not passed to what they are settings of."""
    alone = {str(key) for file in CONF.glob("*.yaml") for key in _content(file)}
    dictionaries = {str(key) for file in (CONF / "features").glob("*.yaml") for key in _content(file)}
    return frozenset(alone - dictionaries - {"defaults", "help", "hydra"} | {"features"})


@cache
def _groups() -> dict[str, str]:
    """Prefixes of settings, such as `trainer`, each with an example of a setting under it."""
    parts = {key: key.split(".") for key in _defaults()}
    return {".".join(names[:end]): key for key, names in parts.items() for end in range(1, len(names))}


def _kind(value: object) -> str | None:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else None


def _default_is_whole(key: str) -> bool:
    known = [value for value in _defaults().get(key, ()) if value is not None]
    return bool(known) and all(_is_whole(value) for value in known)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
