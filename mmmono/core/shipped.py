"""Where the folders conf/ and experiments/ are: at the top of a clone, and inside the package where a wheel is installed."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def shipped(name: str) -> Path:
    """The folder `conf` or `experiments`, which setup.py puts into the wheel as `_conf` and `_experiments` of mmmono."""
    inside = PACKAGE / f"_{name}"
    return inside if inside.is_dir() else PACKAGE.parent / name
