"""Versions of the running software, stored beside every artifact."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Packages whose version can change results.
PACKAGES = (
    "torch", "lightning", "open_clip_torch", "timm", "transformers", "sentence-transformers", "diffusers",
    "scikit-learn", "scipy", "numpy", "pillow",
)  # fmt: skip

SAME = ("mmmono", "commit", "torch")  # versions that processes which share work must have in common


@cache
def provenance() -> dict[str, str]:
    """Return versions by name: mmmono, the commit of its clone, Python, and PACKAGES; absent ones are left out."""
    found = {"mmmono": _version("mmmono"), "commit": _commit(), "python": platform.python_version()}
    return {name: value for name, value in (found | {p: _version(p) for p in PACKAGES}).items() if value}


def other_version(versions: Mapping[str, str]) -> str:
    """Return how this process's software differs from that of others, such as `torch 2.6, not 2.7`; empty if it does not.

    Args:
        versions: the others' provenance.
    """
    mine = provenance()
    others = [
        f"{name} {mine.get(name)}, not {versions.get(name)}" for name in SAME if mine.get(name) != versions.get(name)
    ]
    return next(iter(others), "")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    """Return the clone's commit, with a trailing + if tracked files changed; empty without a clone or git."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return ""
    try:
        commit, changes = (
            subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10, check=True)
            for arguments in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit.stdout.strip() + ("+" if changes.stdout.strip() else "")
