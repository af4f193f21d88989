"""The setting `random_sets`, which all analyses share that compare a class with random features."""

from __future__ import annotations

from typing import cast

from omegaconf import DictConfig

from mmmono.core.errors import ConfigError
from mmmono.modality.random_sets import Match, check_match


def random_match(cfg: DictConfig) -> Match:
    """What random sets have in common with the class that they are compared with, besides their size.

    Raises:
        ConfigError: `random_sets` is none of the known ways.
    """
    match = str(cfg.random_sets)
    try:
        check_match(match)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return cast(Match, match)
