"""Settings as frozen dataclasses that check themselves, instead of mappings that are read by string keys."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache, partial
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from mmmono.core.errors import ConfigError
from mmmono.core.shown import as_typed

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
        key: name of the section, such as `certainty`; empty for settings that are in no section.
        into: dataclass with settings of the section as fields; a field may be a dataclass of a subsection. Its
            `__post_init__` raises a ValueError that begins with the name of the wrong setting, such as
            `fdr=2 must lie between 0 and 1`; types are checked before, against the fields' annotations.

    Raises:
        ConfigError: a setting is wrong; the message names its full key.
    """
    assert is_dataclass(into)
    section = cfg[key] if key else cfg
    values = {field.name: section[field.name] for field in fields(into)}
    for name, value in values.items():
        if OmegaConf.is_config(value):
            values[name] = OmegaConf.to_container(value, resolve=True)
    return _built(values, f"{key}." if key else "", into)


def _built(values: dict[str, Any], prefix: str, into: type[T]) -> T:
    """Make a dataclass from plain values; `prefix` is what stands before their names on the command line."""
    assert is_dataclass(into)
    types = get_type_hints(into)
    names = [field.name for field in fields(into)]
    for name in values:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
            raise ConfigError(
                f"no setting is called '{prefix}{name}'{f', did you mean {prefix + close[0]!r}?' if close else ''}; "
                "--help lists them all"
            )
    for field in fields(into):
        if field.name not in values:
            raise ConfigError(f"{prefix}{field.name} is missing, and this command reads it: give it a value")
        value, hint = values[field.name], types[field.name]
        if isinstance(hint, type) and is_dataclass(hint) and isinstance(value, dict):
            values[field.name] = _built(value, f"{prefix}{field.name}.", hint)
        elif not _fits(value, hint):
            raise ConfigError(f"{prefix}{field.name}={as_typed(value)} must be {_in_words(hint)}")
    try:
        made: T = into(**values)
    except (ValueError, ConfigError) as error:
        raise ConfigError(f"{prefix}{error}") from error
    return made


WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "null"}


def check_option(group: str, node: DictConfig) -> None:
    """Raise ConfigError if a setting of an option, such as `model=open_clip`, is not of the type that its class says.

    Types that no value of YAML has, such as paths, say nothing.

    Args:
        group: name of the group, such as `model`.
        node: its settings, with `_target_`.
    """
    hints = _annotated(node._target_)
    names = [name for name in hints if name in node and not OmegaConf.is_missing(node, name) and _is_plain(hints[name])]
    for name in sorted(names, key=partial(OmegaConf.is_interpolation, node)):  # what others refer to comes first
        hint = hints[name]
        value = node[name]
        value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        if not _fits(value, hint):
            quoted = f"{group}.{name}='\"{as_typed(value)}\"'"
            remedy = f": type {quoted}" if isinstance(value, int | float) and _fits(str(value), hint) else ""
            raise ConfigError(f"{group}.{name}={as_typed(value)} must be {_in_words(hint)}{remedy}")


@cache
def _annotated(target: str) -> dict[str, Any]:
    """Types of what a class or a function takes, as far as they are known."""
    made = get_object(target)
    called: Any = inspect.getattr_static(made, "__init__") if inspect.isclass(made) and not is_dataclass(made) else made
    names = {field.name for field in fields(made) if field.init} if is_dataclass(made) else None
    try:
        hints = get_type_hints(called)
    except NameError:  # of something that is imported for type checkers alone
        return {}
    return {name: hint for name, hint in hints.items() if (name != "return" if names is None else name in names)}


def _is_plain(hint: Any) -> bool:
    """Whether values of YAML can be judged by an annotation."""
    if get_origin(hint) is Literal:
        return True
    if arguments := [one for one in get_args(hint) if one is not Ellipsis]:
        return all(map(_is_plain, arguments))
    return hint in WORDS


def _fits(value: object, hint: Any) -> bool:
    """Whether a value that was read from YAML is of an annotated type; a whole number also is a number."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is Literal:
        return isinstance(value, str)  # the dataclass says which words there are
    if origin is not None and issubclass(origin, Sequence):
        return isinstance(value, list) and all(_fits(entry, arguments[0]) for entry in value)
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, dict)
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    return isinstance(value, int | float) if hint is float else isinstance(value, hint)


def _in_words(hint: Any) -> str:
    """Say what a setting of an annotated type may be, such as `a whole number or null`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        lists_last = sorted(arguments, key=lambda one: get_origin(one) is not None)
        return " or ".join(map(_in_words, lists_last))
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is not None:
        return "a group of settings" if issubclass(origin, Mapping) else f"a list, of {_in_words(arguments[0])} each"
    return WORDS.get(hint, "a group of settings")
