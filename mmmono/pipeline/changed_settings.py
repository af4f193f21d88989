"""The settings of a run with some of them changed, such as another model: those of a second run to compare with."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmmono.core.errors import ConfigError
from mmmono.pipeline.command_line import quote
from mmmono.pipeline.running import added, error_line
from mmmono.pipeline.settings import CONF, check_settings
from mmmono.pipeline.shared_settings import own_options, settings_it_has

CHANGE = re.compile(r"\+{0,2}([A-Za-z_][\w./-]*)=.*", re.DOTALL)
SHARED = ("artifacts", "device", "hydra", "logger")  # by both runs
OPTIONS = ("model", "dataset")  # groups whose settings belong to the chosen option


def changed_settings(job: str, setting: str, changes: Sequence[str]) -> DictConfig:
    """Compose the configuration of this run once more, with changes.

    All that this run was given holds there too, except for what is changed. Where another `model=` or `dataset=` is chosen,
    settings of this run's own, such as `model.name`, do not hold; nor do settings that the changed run does not have, such
    as those of an autoencoder that it does not train.

    Args:
        job: name of the entrypoint.
        setting: the setting that has the changes, such as `explorer.compare`; for messages.
        changes: overrides, as on the command line.

    Raises:
        ConfigError: a change is no override, is of something that both runs share, or gives an invalid setting; or this is
            not a run of an entrypoint.
    """
    if not HydraConfig.initialized():
        raise ConfigError(f"{setting} changes settings of a command line: use it with experiments/{job}.py")
    keys = [_key(setting, change, [*SHARED, job]) for change in changes]
    given = [added(quote(change)) for change in changes]
    own = [override for override in HydraConfig.get().overrides.task if not _is_left_out(override, keys, job)]
    name = HydraConfig.get().job.config_name or job  # another one: -cn with a file of the user's own
    options = own_options()
    try:
        held = set(settings_it_has(name, [*options, *own, *given], CONF))
        cfg = compose(name, [*options, *(override for override in own if override in held), *given])
        missing = sorted(OmegaConf.missing_keys(cfg))
        if missing:
            raise ConfigError(f"{missing[0]} needs a value: add {missing[0]}=... to the list")
        check_settings(cfg, job)
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{setting}: {error_line(error)}") from error
    return cfg


def _key(setting: str, change: str, shared: Sequence[str]) -> str:
    """Key of a change. Raises ConfigError if it has none, or one of a section that both runs share."""
    match = CHANGE.fullmatch(change)
    if match is None:
        raise ConfigError(
            f"{setting} has {change!r}, which changes no setting: give such as {setting}=[model=clip_rn50]"
        )
    if match[1].partition(".")[0].partition("/")[0] in shared:
        raise ConfigError(f"{setting} has {change}, but both runs share {match[1]}: give it outside of the list")
    return match[1]


def _is_left_out(override: str, changed: Sequence[str], job: str) -> bool:
    """Whether an override of this run does not hold in the changed one, given the keys of the changes."""
    key = override.lstrip("+~").partition("=")[0]
    group, dot, _ = key.partition(".")
    return group == job or key in changed or (bool(dot) and group in OPTIONS and group in changed)
