"""Arguments that several entrypoints share: each entrypoint takes the settings that it has.

`make section-3 ARGS='embedder=clip'` runs two entrypoints, and only one of them has an embedder. The Makefile lists all
entrypoints of the call in an environment variable. Each entrypoint drops the settings that only others have. A setting
that none of them has is kept, so that it is reported as mistyped.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmmono.core.shown import as_typed
from mmmono.pipeline.command_line import quote

# Environment variable with the entrypoints, each with its preset of conf/paper if any, and the groups that they share,
# e.g. "mds:figure4 certainty model=clip_rn50".
TOGETHER = "MMMONO_TOGETHER"
OWN_OPTION = re.compile(r"\+[\w/-]+=|hydra\.searchpath=")  # what `_is_group` does not know


def own_settings(config_name: str, arguments: Sequence[str], conf: Path, together: str | None = None) -> list[str]:
    """Drop the arguments that this entrypoint does not have but another one of the same call has.

    Args:
        config_name: name of the entrypoint's configuration.
        arguments: command-line arguments.
        conf: folder of the configuration.
        together: the entrypoints of the call and their shared groups; by default from the environment variable.

    Returns:
        The remaining arguments. A plan keeps its steps' settings, with a plus because it does not have them itself; an
        option that brings a whole configuration, and so cannot be a part of the plan's, is an entry of `plan.more`.
    """
    words = shlex.split(os.environ.get(TOGETHER, "") if together is None else together)
    others = [word for word in words if "=" not in word and word.split(":")[0] != config_name]
    if not others or any(argument in ("--help", "-h") for argument in arguments):
        return list(arguments)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf), version_base="1.3"):
            return _sorted_out(config_name, arguments, others, [word for word in words if "=" in word], conf)
    except HydraException:
        return list(arguments)  # the entrypoint itself reports this error
    finally:
        GlobalHydra.instance().clear()


def settings_it_has(config_name: str, overrides: Sequence[str], conf: Path) -> list[str]:
    """Keep the overrides of settings that an entrypoint has, given the groups among them; needs Hydra initialized.

    Groups of the user's own, such as `+experiment=mine`, count like those of `conf`; see `own_options`.
    """
    groups = [o for o in overrides if _is_group(o, conf) or OWN_OPTION.match(o)]
    here = _composed(config_name, conf, groups)
    return [override for override in overrides if (key := _key(override)) is None or _has(here, key)]


def choices_of(config_name: str, overrides: Sequence[str], conf: Path) -> Mapping[str, str]:
    """Options that an entrypoint's configuration chooses, given some overrides; needs Hydra initialized."""
    found: Mapping[str, str] = _composed(config_name, conf, overrides).hydra.runtime.choices
    return found


def own_options() -> list[str]:
    """Override that finds the options in folders of the user's own, where this command has such; empty if it has none.

    A configuration that is composed once more needs it: Hydra does not look into folders of `hydra.searchpath` again. On a
    command line it does what `--config-dir` does.
    """
    sources = HydraConfig.get().runtime.config_sources
    folders = [f"{s.schema}://{s.path}" for s in sources if s.provider.startswith(("command-line", "hydra.searchpath"))]
    listed = [folder if re.fullmatch(r"[\w:/.-]+", folder) else json.dumps(folder) for folder in dict.fromkeys(folders)]
    return [f"hydra.searchpath=[{','.join(listed)}]"] if listed else []


def settings_of_own_file(usual: str, conf: Path) -> list[str]:
    """Overrides that set what a file of the user's own (`-cn mine`) does, for other entrypoints, which do not read it.

    Args:
        usual: name of the entrypoint's own configuration, which such a file builds on; without one there is nothing to set.
        conf: folder of the configuration.
    """
    hydra = HydraConfig.get()
    if hydra.job.config_name in (None, usual):
        return []
    given = [*own_options(), *hydra.overrides.task]
    ours = compose(hydra.job.config_name, given, return_hydra_config=True)
    plain = _composed(usual, conf, given)
    before = plain.hydra.runtime.choices
    groups = [
        f"{group}={option}"
        for group, option in ours.hydra.runtime.choices.items()
        if group.split("/")[0] not in ("features", "hydra")
        and option is not None
        and before.get(group, option) != option
    ]
    if "features" in ours and list(ours.features.sets) != list(plain.features.sets):  # several are no choice to Hydra
        groups.append(f"features=[{','.join(map(str, ours.features.sets))}]")
    known = settings_it_has(usual, [*groups, *given], conf)
    theirs = dict(_leaves(compose(usual, [*groups, *(override for override in given if override in known)])))
    changed = [(key, value) for key, value in _leaves(ours) if key in theirs and theirs[key] != value]
    return [*groups, *(quote(f"{key}={as_typed(value)}") for key, value in changed)]


def _leaves(node: DictConfig, start: str = "") -> Iterator[tuple[str, object]]:
    """Yield the values of a configuration by their keys, in order; a list is one value."""
    for key in map(str, node):
        place = f"{start}{key}"
        if place not in ("hydra", "help") and not OmegaConf.is_missing(node, key):
            try:
                value = node[key]
            except OmegaConfBaseException:  # it follows from a value that is missing
                continue
            if isinstance(value, DictConfig):
                yield from _leaves(value, f"{place}.")
            else:
                yield place, list(value) if isinstance(value, ListConfig) else value


def _sorted_out(
    config_name: str, arguments: Sequence[str], others: Sequence[str], shared: Sequence[str], conf: Path
) -> list[str]:
    groups = [argument for argument in arguments if _is_group(argument, conf)]
    here = _composed(config_name, conf, groups)
    named = {"features", *map(_key, shared)}  # sections differ in their features
    chosen = [*shared, *(g for g in groups if _key(g) not in named and not g.startswith("+"))]
    kept = []
    for argument in arguments:
        key = _key(argument)
        if key is None or _has(here, key):
            kept.append(argument)
            continue
        likely_first = sorted(others, key=lambda other: other.partition(":")[0] != key.partition(".")[0])
        if not any(_has(config, key) for other in likely_first for config in _composed_elsewhere(other, conf, chosen)):
            kept.append(argument)
        elif config_name == "plan":
            kept.append(f"+{argument}" if _fits(config_name, conf, argument) else f"plan.more=['{argument}']")
    return kept


def _fits(config_name: str, conf: Path, argument: str) -> bool:
    """Whether an argument with a plus can be a part of a configuration, as far as that is a question of groups."""
    if not _is_group(argument, conf):
        return True
    try:
        _compose_once(config_name, conf, f"+{_first_choice(argument)}")
    except HydraException:
        return False
    return True


def _composed_elsewhere(other: str, conf: Path, groups: Sequence[str]) -> Iterator[DictConfig]:
    """Compose another entrypoint's configuration with its preset if any, and with the groups."""
    name, _, preset = other.partition(":")
    if preset:
        yield _composed(name, conf, [f"+paper={preset}"])
        yield _composed(name, conf, [f"+paper={preset}", *groups])
    else:
        yield _composed(name, conf, groups)


def _composed(config_name: str, conf: Path, groups: Sequence[str]) -> DictConfig:
    """Compose an entrypoint's configuration with the groups that it has; of a sweep, with the first option."""
    with suppress(HydraException):  # it does not have one of the groups
        return _compose_once(config_name, conf, *map(_first_choice, groups))
    known = _compose_once(config_name, conf)
    usable = [_first_choice(group) for group in groups if group.startswith("+") or _has(known, str(_key(group)))]
    return _compose_once(config_name, conf, *usable)


@lru_cache(maxsize=256)  # Hydra takes a tenth of a second
def _compose_once(config_name: str, conf: Path, *overrides: str) -> DictConfig:
    """Compose a configuration of the folder that Hydra is initialized with. It is only looked at, never changed."""
    return compose(config_name, list(overrides), return_hydra_config=True)


def _first_choice(argument: str) -> str:
    """Turn the sweep `group=a,b` into `group=a`; a list in brackets or a quoted value is one option."""
    key, _, value = argument.partition("=")
    return argument if value.startswith(("[", "'", '"')) else f"{key}={value.split(',')[0]}"


def _key(argument: str) -> str | None:
    """Key of an argument; None for flags, for arguments with a plus, and for Hydra's own settings."""
    match = re.match(r"~?([A-Za-z_][\w./-]*)(?:@[\w.]*)?(?:=|$)", argument)
    return None if match is None or match[1].split(".")[0].split("/")[0] == "hydra" else match[1]


def _is_group(argument: str, conf: Path) -> bool:
    match = re.match(r"\+?([\w/-]+)=", argument)
    return match is not None and match[1] != "hydra" and (conf / match[1]).is_dir()


def _has(config: DictConfig, key: str) -> bool:
    if key in config.hydra.runtime.choices:
        return True
    node: object = config
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in list(node):  # `in` is False for missing values (`???`)
            return False
        node = node._get_node(part)
    return True
