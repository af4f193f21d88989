"""Check that a transformers model is available before long computations start."""

from __future__ import annotations

import shutil
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache

from mmmono.core.errors import ModelError
from mmmono.vlm.hub import hub_or_cache, hub_reason

CONFIG = "config.json"
TIMEOUT_SECONDS = 10.0


def check_model(setting: str, name: str, instead: str) -> None:
    """Raise ModelError unless a model is in a folder or in the hub's cache, or can be downloaded.

    For a hub id, this reads the configuration, which shows that the repository exists and the user has access, and
    compares the remaining download with the free disk space.

    Args:
        setting: setting that names the model, such as `labels.model`; for the message.
        name: a folder or a hub id.
        instead: what the user can do instead; for the message.
    """
    cannot = f"{setting}={name} cannot be had"
    if Path(name).is_dir():
        if not (Path(name) / CONFIG).is_file():
            raise ModelError(f"{cannot} (the folder has no {CONFIG}): {instead}")
        return
    if Path(name).is_absolute() or name.count("/") > 1:
        raise ModelError(f"{cannot} (it is no folder, and no id on the hub): {instead}")
    try:
        with hub_or_cache():
            hf_hub_download(name, CONFIG)
            needed = 0 if constants.HF_HUB_OFFLINE else _bytes_to_download(name)
    except Exception as error:  # versions of the hub client raise errors of different HTTP libraries
        raise ModelError(f"{cannot} ({hub_reason(error)}): {instead}") from error
    free = shutil.disk_usage(_existing(Path(constants.HF_HUB_CACHE))).free
    if needed > free:
        raise ModelError(
            f"{cannot} ({needed / 1e9:.1f} GB are to be downloaded, {free / 1e9:.1f} GB are free under "
            f"{constants.HF_HUB_CACHE}): free some, point HF_HOME elsewhere, or {instead}"
        )


def _bytes_to_download(name: str) -> int:
    """Size in bytes of the uncached weights that transformers would load (safetensors if any); 0 if unknown."""
    try:
        files = HfApi().model_info(name, files_metadata=True, timeout=TIMEOUT_SECONDS).siblings or []
    except Exception:  # some mirrors serve only files, so the size is unknown
        return 0
    for suffix in (".safetensors", ".bin"):
        weights = [file for file in files if file.rfilename.endswith(suffix) and "/" not in file.rfilename]
        if weights:
            absent = (file for file in weights if not isinstance(try_to_load_from_cache(name, file.rfilename), str))
            return sum(file.size or 0 for file in absent)
    return 0


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
