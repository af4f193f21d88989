"""Names of models, as parts of folder names."""

from __future__ import annotations

import re
from pathlib import Path


def as_name(text: str) -> str:
    """Return a model's name as part of folder names: letters, digits and `.+-_` alone."""
    return re.sub(r"[^\w.+-]+", "-", text).strip("-") or "model"


def last_part(address: str) -> str:
    """Return the last part of a path, or of an id on the hub with its revision."""
    path, at, revision = address.partition("@")
    return Path(path).absolute().name + at + revision
