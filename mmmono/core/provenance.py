"""What software is running: kept beside every artifact, so that a result says what made it."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Those whose version can move a number.
PACKAGES = (
    "torch", "lightning", "open_clip_torch", "timm", "transformers", "sentence-transformers", "diffusers",
    "scikit-learn", "scipy", "numpy", "pillow",
)  # fmt: skip


@cache
def provenance() -> dict[str, str]:
    """Versions by name: mmmono, the commit of the clone it runs from, Python, and the packages that compute."""
    found = {"mmmono": _version("mmmono"), "commit": _commit(), "python": platform.python_version()}
    return {name: value for name, value in (found | {p: _version(p) for p in PACKAGES}).items() if value}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    """The clone's commit, with a + where files were changed since; empty where there is no clone or no git."""
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
