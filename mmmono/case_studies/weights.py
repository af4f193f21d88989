"""Whether a model of transformers can be had, asked before anything heavy is done."""

from __future__ import annotations

import shutil
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache

from mmmono.core.errors import ModelError
from mmmono.vlm.hub import hub_or_cache, hub_reason

CONFIG = "config.json"
TIMEOUT_SECONDS = 10.0


def check_model(setting: str, name: str, instead: str) -> None:
    """Raise ModelError unless a model's weights are in a folder, in the hub's cache, or can be downloaded.

    Of a repository on the hub the configuration is read, which shows whether it exists and this user may read it, and the
    size of what is still to be downloaded is held against the room on the disk.

    Args:
        setting: that names the model, such as `labels.model`.
        name: a folder, or an id on the hub.
        instead: what else the user may do.
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
    except Exception as error:  # each version of the hub's client raises its own HTTP library's errors
        raise ModelError(f"{cannot} ({hub_reason(error)}): {instead}") from error
    free = shutil.disk_usage(_existing(Path(constants.HF_HUB_CACHE))).free
    if needed > free:
        raise ModelError(
            f"{cannot} ({needed / 1e9:.1f} GB are to be downloaded, {free / 1e9:.1f} GB are free under "
            f"{constants.HF_HUB_CACHE}): free some, point HF_HOME elsewhere, or {instead}"
        )


def _bytes_to_download(name: str) -> int:
    """Of the weights that transformers would choose: safetensors where there are any."""
    try:
        files = HfApi().model_info(name, files_metadata=True, timeout=TIMEOUT_SECONDS).siblings or []
    except Exception:  # some mirrors serve files alone: then the size is not known
        return 0
    for suffix in (".safetensors", ".bin"):
        weights = [file for file in files if file.rfilename.endswith(suffix) and "/" not in file.rfilename]
        if weights:
            absent = (file for file in weights if not isinstance(try_to_load_from_cache(name, file.rfilename), str))
            return sum(file.size or 0 for file in absent)
    return 0


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
