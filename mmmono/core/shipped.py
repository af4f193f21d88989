"""Finds the folders conf/ and experiments/, in a clone and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def shipped(name: str) -> Path:
    """Path of `conf` or `experiments`: beside the package in a clone, `_conf` or `_experiments` inside it in a wheel.

    setup.py puts the two folders into the wheel under these names.
    """
    inside = PACKAGE / f"_{name}"
    return inside if inside.is_dir() else PACKAGE.parent / name
