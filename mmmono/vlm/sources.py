"""What an architecture and a name of weights mean, told without weights: configuration, preprocessing, tokenizer.

A tag of open_clip, a repository of the hub and a folder in that layout bring what belongs to their weights. A bare file
does not: what belongs to it is named by settings, or by an `open_clip_config.json` in its folder.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import open_clip
from open_clip.factory import _find_checkpoint_in_dir
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH
from open_clip.transform import PreprocessCfg

from mmmono.core.errors import ModelError
from mmmono.core.fingerprints import files_fingerprint
from mmmono.vlm.hub import download
from mmmono.vlm.weight_settings import CONFIG_FILE, WeightSettings, read_config, settings_beside, settings_of_tag

HUB, FOLDER = "hf-hub:", "local-dir:"


@dataclass(frozen=True)
class ModelSource:
    """A model that can be built, and where its weights come from.

    Attributes:
        architecture: open_clip's name, or `local-dir:` and the folder of its configuration.
        config: open_clip's configuration, with what the settings change.
        preprocess: all of open_clip's preprocessing settings; `size` is the model's.
        tokenizer: a Hugging Face tokenizer's id or folder, in place of the configuration's; None leaves it.
        repository: on the hub, that the weights are downloaded from.
        tag: open_clip's entry for the weights, empty if they have none.
        weights: their file where it is at hand; None for what is downloaded, and for random weights.
    """

    architecture: str
    config: dict[str, Any]
    preprocess: dict[str, Any]
    tokenizer: str | None = None
    repository: str | None = None
    tag: dict[str, Any] = field(default_factory=dict)
    weights: Path | None = None

    @property
    def dim(self) -> int:
        """Width of the joint space."""
        return int(self.config["embed_dim"])

    @property
    def quick_gelu(self) -> bool:
        """Whether the model has QuickGELU."""
        return bool(self.config.get("quick_gelu", False))

    @property
    def context_length(self) -> int:
        """Tokens of a caption."""
        return int(self.config["text_cfg"].get("context_length", DEFAULT_CONTEXT_LENGTH))

    @property
    def wants_hub(self) -> bool:
        """Whether something of it is looked up on the hub."""
        text = self.config["text_cfg"]
        names = (text.get("hf_model_name"), self.tokenizer or text.get("hf_tokenizer_name"))
        return bool(self.tag or self.repository) or any(name and not Path(name).is_dir() for name in names)

    def recipe(self) -> dict[str, Any]:
        """Everything besides architecture and weights that determines embeddings."""
        tokenizer = self.tokenizer or self.config["text_cfg"].get("hf_tokenizer_name")
        return {
            "preprocess": {name: list(v) if isinstance(v, tuple) else v for name, v in self.preprocess.items()},
            "quick_gelu": self.quick_gelu,
            "context_length": self.context_length,
            "tokenizer": _tokenizer_identity(tokenizer) if tokenizer else None,
        }


def model_source(
    architecture: str, pretrained: str | None, settings: WeightSettings, cache_dir: str | None = None
) -> ModelSource:
    """Find out what a model is made of; nothing but a repository's configuration is downloaded.

    Args:
        architecture: a name from `open_clip.list_models()`, `hf-hub:org/name`, or `local-dir:` and a folder.
        pretrained: a tag, a file, or None for random weights or for a repository's or folder's own.
        settings: what belongs to the weights.
        cache_dir: where downloads go, if not to the hub's own cache.

    Raises:
        ModelError: a name that nobody knows, a file that is not there or broken, or a setting that cannot work.
    """
    if architecture.startswith((HUB, FOLDER)):
        if pretrained:
            raise ModelError(
                f"model.pretrained={pretrained} has no place beside model.architecture={architecture}, which brings its "
                "own weights: leave it out"
            )
        return _packaged(architecture, settings, cache_dir)
    architecture = architecture.replace("/", "-")
    config = open_clip.get_model_config(architecture) if architecture in open_clip.list_models() else None
    if config is None:
        raise ModelError(
            f"model.architecture={architecture} is unknown to open_clip"
            f"{did_you_mean(architecture, open_clip.list_models())}; open_clip.list_models() lists all, and "
            "hf-hub:org/name and local-dir:/path are taken too"
        )
    tag = open_clip.get_pretrained_cfg(architecture, pretrained) if pretrained else {}
    if tag:
        if settings.quick_gelu and not (config.get("quick_gelu") or tag.get("quick_gelu")):
            raise ModelError(f"model.pretrained={pretrained} was trained with GELU: drop model.force_quick_gelu")
        # A tag knows its activation; open_clip only warns where the architecture's configuration has the other one.
        brought = settings_of_tag(tag)
        source = ModelSource(architecture, config, {}, tag=tag)
        return _completed(source, settings, brought, bool(brought.quick_gelu))
    file = _weights_file(architecture, pretrained)
    brought = WeightSettings()
    if file is not None and (beside := file.parent / CONFIG_FILE).is_file():
        brought = settings_beside(beside)
        _check_same_width(beside, config, architecture)
    return _completed(ModelSource(architecture, config, {}, weights=file), settings, brought)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The known names closest to one that is unknown, for an error; empty if none is close."""
    by_lower = {known.lower(): known for known in names}
    close = [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=4, cutoff=0.5)]
    return f" (closest: {', '.join(close)})" if close else ""


def _packaged(architecture: str, settings: WeightSettings, cache_dir: str | None) -> ModelSource:
    """A model whose configuration lies beside its weights, in a folder or on the hub."""
    repository = architecture.removeprefix(HUB) if architecture.startswith(HUB) else None
    if repository is not None:
        file = download(repository, [CONFIG_FILE], cache_dir)
    else:
        file = Path(architecture.removeprefix(FOLDER)).expanduser() / CONFIG_FILE
        if not file.is_file():
            raise ModelError(
                f"model.architecture={architecture}: there is no {file}; give a folder that has it and the weights, as "
                "open_clip publishes its models"
            )
    config = read_config(file).get("model_cfg", {})
    if missing := [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in config]:
        raise ModelError(f"{file} has no {missing[0]} in its model_cfg: is it open_clip's?")
    weights = None
    if repository is None:
        if (found := _find_checkpoint_in_dir(file.parent)) is None:
            raise ModelError(f"{file.parent} has no weights beside its {CONFIG_FILE}: *.safetensors, *.bin or *.pth")
        weights = Path(found)
    source = ModelSource(f"{FOLDER}{file.parent}", config, {}, repository=repository, weights=weights)
    brought = settings_beside(file)
    if repository is not None:  # which of its tokenizer's files are there already is chance
        brought = replace(brought, tokenizer=None)
    return _completed(source, settings, brought)


def _completed(
    source: ModelSource, settings: WeightSettings, brought: WeightSettings, quick_gelu: bool = False
) -> ModelSource:
    """The source with what its weights bring, what a reference tag says over that, and the settings over both."""
    name = source.architecture
    known = settings.over(_reference(name, settings.preprocess_of)).over(brought)
    config = source.config
    config["quick_gelu"] = bool(config.get("quick_gelu") or quick_gelu or known.quick_gelu)
    if known.image_size is not None:
        size = known.image_size
        config["vision_cfg"]["image_size"] = size if isinstance(size, int) else tuple(size)
    if known.context_length is not None:
        config["text_cfg"]["context_length"] = known.context_length
    preprocess = asdict(PreprocessCfg()) | known.preprocessing()
    preprocess["size"] = config["vision_cfg"].get("image_size", preprocess["size"])
    return ModelSource(name, config, preprocess, known.tokenizer, source.repository, source.tag, source.weights)


def _reference(architecture: str, preprocess_of: str | None) -> WeightSettings:
    """What the tag says whose preprocessing is asked for. Raises ModelError if there is no such tag."""
    if preprocess_of is None:
        return WeightSettings()
    other, _, tag = str(preprocess_of).rpartition("/")
    other = (other or architecture).replace("/", "-")
    found = open_clip.get_pretrained_cfg(other, tag)
    if not found:
        tags = open_clip.list_pretrained_tags_by_model(other)
        raise ModelError(
            f"model.preprocess_of={preprocess_of} is no tag of {other}{did_you_mean(tag, tags)}: it has "
            f"{', '.join(tags) or 'none'}; another architecture's is given as architecture/tag"
        )
    return settings_of_tag(found)


def _weights_file(architecture: str, pretrained: str | None) -> Path | None:
    if not pretrained:
        return None
    if (path := Path(pretrained).expanduser()).is_file():
        return path
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if path.is_dir():
        raise ModelError(
            f"model.pretrained={pretrained} is a folder: give the file in it, or model.architecture=local-dir:{pretrained} "
            f"if it has {CONFIG_FILE}"
        )
    if path.suffix or "/" in pretrained:
        raise ModelError(
            f"model.pretrained={pretrained} is no file: give the path of a checkpoint, or a tag ({', '.join(tags)})"
        )
    raise ModelError(
        f"model.pretrained={pretrained} is no tag of {architecture}{did_you_mean(pretrained, tags)}: "
        f"it has {', '.join(tags) or 'none'}; a checkpoint's path is taken too"
    )


def _tokenizer_identity(name: str) -> str:
    """A tokenizer's id, or what lies in its folder."""
    if not Path(name).is_dir():
        return name
    return files_fingerprint({f.name: f for f in Path(name).iterdir() if f.suffix in (".json", ".txt", ".model")})


def _check_same_width(file: Path, config: dict[str, Any], architecture: str) -> None:
    """A configuration beside weights that is another model's says nothing about them."""
    width = read_config(file).get("model_cfg", {}).get("embed_dim", config["embed_dim"])
    if width != config["embed_dim"]:
        raise ModelError(
            f"{file} says embed_dim={width}, and {architecture} has {config['embed_dim']}: choose the architecture that it "
            f"describes, model.architecture=local-dir:{file.parent}, or put the weights into a folder of their own"
        )
