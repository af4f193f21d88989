"""Whether two artifact roots hold the same: every file by its content, except what is different between any two runs."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

PARTIAL = ".partial"
# Hydra's and Lightning's logs, and checkpoints to resume from, tell how a run went and not what came out of it.
NOT_COMPARED = re.compile(r"(^|/)(runs|checkpoints|logs|lightning_logs)/|\.lock$|(^|/)(versions|timing)\.json$|\.pdf$")
TIMES = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?|\d{10}\.\d+")


def contents(root: Path) -> dict[str, str]:
    """A digest of each file under a root by its path, without unfinished artifacts."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and not NOT_COMPARED.search(name) and PARTIAL not in name:
            found[name] = _digest(path)
    return found


def _digest(path: Path) -> str:
    if path.suffix == ".parquet":
        frame = pd.read_parquet(path)
        return hashlib.sha256(frame.to_json(double_precision=15).encode()).hexdigest()
    if path.suffix == ".png":
        return hashlib.sha256(np.asarray(Image.open(path).convert("RGBA")).tobytes()).hexdigest()
    data = path.read_bytes()
    if path.suffix == ".json":
        data = json.dumps(json.loads(data), sort_keys=True).encode()
    return hashlib.sha256(TIMES.sub(b"", data)).hexdigest()


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """What one root has and the other has not, and what differs, in words."""
    return [
        *(f"missing: {name}" for name in expected.keys() - found.keys()),
        *(f"left over: {name}" for name in found.keys() - expected.keys()),
        *(f"differs: {name}" for name in expected.keys() & found.keys() if expected[name] != found[name]),
    ]
