"""Exports of a package whose modules are imported when one of their names is first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_exports(package: str, names: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return a `__getattr__` for a package that imports the module of a name, as PEP 562 provides for.

    For modules that import a large library, such as Lightning: a command that does not need it starts seconds sooner.
    Type checkers read the imports that the package repeats below `if TYPE_CHECKING`.

    Args:
        package: `__name__` of the package.
        names: the names that each of its modules exports.
    """
    modules = {name: module for module, of in names.items() for name in of}

    def load(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return load
