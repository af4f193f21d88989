"""The registry: all analyses, in the paper's order; those that are not in the paper come last.

Each is declared once, in a folder of its own, which is found by itself; mmmono/pipeline/analysis.py says how.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from mmmono.pipeline.analysis import Analysis


def _declared(folder: str) -> Analysis:
    """Return the analysis that a folder declares. Raises TypeError if it declares none or several."""
    module = import_module(f"{__name__}.{folder}")
    found = [value for value in vars(module).values() if isinstance(value, Analysis)]
    if [analysis.name for analysis in found] != [folder]:
        raise TypeError(f"mmmono/analyses/{folder}/__init__.py must declare one Analysis with name={folder!r}")
    return found[0]


def _place(analysis: Analysis) -> tuple[bool, bool, str, str]:
    return not analysis.section, analysis.section == "+", analysis.section, analysis.name


ANALYSES = tuple(sorted((_declared(info.name) for info in iter_modules(__path__)), key=_place))
