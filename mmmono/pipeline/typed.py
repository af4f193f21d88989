"""Settings as frozen dataclasses that check themselves, instead of mappings that are read by string keys."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

from omegaconf import DictConfig, OmegaConf

from mmmono.core.errors import ConfigError

T = TypeVar("T")


def taken_from(options: object, into: type[T]) -> T:
    """Make a dataclass from the attributes of `options` that are called like its fields; others keep their defaults.

    Raises:
        ConfigError, ModelError or ValueError: what the dataclass raises for invalid values.
    """
    assert is_dataclass(into)
    return into(**{f.name: getattr(options, f.name) for f in fields(into) if hasattr(options, f.name)})


def read_settings(cfg: DictConfig, key: str, into: type[T]) -> T:
    """Return the settings under a key of the configuration as a dataclass.

    Args:
        cfg: the composed configuration.
        key: name of the section, such as `certainty`.
        into: dataclass with the section's settings as fields; a field may be a dataclass of a subsection. Its
            `__post_init__` raises a ValueError that begins with the name of the wrong setting, such as
            `fdr=2 must lie between 0 and 1`.

    Raises:
        ConfigError: a setting is wrong; the message names its full key.
    """
    values = OmegaConf.to_container(cfg[key], resolve=True)
    assert isinstance(values, dict)
    return _built({str(name): value for name, value in values.items()}, key, into)


def _built(values: dict[str, Any], key: str, into: type[T]) -> T:
    assert is_dataclass(into)
    types = get_type_hints(into)
    for field in fields(into):
        if is_dataclass(types[field.name]) and isinstance(values[field.name], dict):
            values[field.name] = _built(values[field.name], f"{key}.{field.name}", types[field.name])
    try:
        made: T = into(**values)
    except (ValueError, ConfigError) as error:
        raise ConfigError(f"{key}.{error}") from error
    return made
