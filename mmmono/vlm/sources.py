"""Resolves an architecture and a name of weights, without loading them, to configuration, preprocessing and tokenizer.

open_clip's tags, hub repositories and folders in their layout contain what belongs to the weights. A bare file does
not: settings, or an `open_clip_config.json` in its folder, provide it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import open_clip
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from open_clip.factory import _find_checkpoint_in_dir
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH
from open_clip.transform import PreprocessCfg

from mmmono.core.errors import ModelError
from mmmono.core.files import user_path
from mmmono.core.fingerprints import file_fingerprint, files_fingerprint
from mmmono.vlm.hub import hub_or_cache
from mmmono.vlm.repositories import Repository
from mmmono.vlm.weight_settings import (
    CONFIG_FILE,
    FOLDER,
    HUB,
    WEIGHTS,
    WeightSettings,
    read_config,
    settings_beside,
    settings_of_tag,
)

# What open_clip calls the weights of a folder, before any other name.
OWN_NAMES = ("open_clip_model", "open_clip_pytorch_model", "model", "pytorch_model")


@dataclass(frozen=True)
class ModelSource:
    """A model that can be built, and the origin of its weights.

    Attributes:
        architecture: open_clip's name, or `local-dir:` and the folder of its configuration.
        config: open_clip's configuration, with the settings applied.
        preprocess: all of open_clip's preprocessing settings; `size` is the model's.
        tokenizer: id or folder of a Hugging Face tokenizer that replaces the configuration's; None keeps it.
        repository: hub repository that has the weights.
        tag: open_clip's entry for the weights; empty if there is none.
        weights: their local file; None for downloaded and for random weights.
    """

    architecture: str
    config: dict[str, Any]
    preprocess: dict[str, Any]
    tokenizer: str | None = None
    repository: Repository | None = None
    tag: dict[str, Any] = field(default_factory=dict)
    weights: Path | None = None

    @property
    def dim(self) -> int:
        """Width of the joint embedding space."""
        return int(self.config["embed_dim"])

    @property
    def blocks(self) -> tuple[int | None, int | None]:
        """Numbers of blocks of the image and the text tower; None if the configuration does not have them."""
        image, text = (self.config[tower].get("layers") for tower in ("vision_cfg", "text_cfg"))
        return image if isinstance(image, int) else None, text if isinstance(text, int) else None

    @property
    def quick_gelu(self) -> bool:
        """Whether the model uses QuickGELU."""
        return bool(self.config.get("quick_gelu", False))

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of a caption."""
        return int(self.config["text_cfg"].get("context_length", DEFAULT_CONTEXT_LENGTH))

    def weights_identity(self) -> Any:
        """Return what identifies a repository's or a file's weights: a digest of the whole file. None for random ones.

        Raises:
            ModelError: the repository has no weights, or cannot be reached.
        """
        if self.repository is None:
            return file_fingerprint(self.weights) if self.weights else None
        with hub_or_cache():
            found = self.repository.first(*WEIGHTS)
        if found is not None:
            return {"repository": self.repository.name, "digest": found[1]}
        name = self.repository.name
        raise ModelError(
            f"{HUB}{name} has the file {CONFIG_FILE} and no weights, neither {' nor '.join(WEIGHTS)}: if they have "
            f"another name, fetch all files with 'hf download {name} --local-dir folder', and give "
            f"model.architecture={FOLDER}folder"
        )

    @property
    def wants_hub(self) -> bool:
        """Whether the hub is needed to build or load the model."""
        text = self.config["text_cfg"]
        names = (text.get("hf_model_name"), self.tokenizer or text.get("hf_tokenizer_name"))
        return bool(self.tag or self.repository) or any(name and not Path(name).is_dir() for name in names)

    def built(self) -> dict[str, Any]:
        """Return the configuration with the content of local folders in place of their paths, which differ by machine."""
        text = dict(self.config["text_cfg"])
        for key in ("hf_model_name", "hf_tokenizer_name"):
            if text.get(key):
                text[key] = _folder_identity(text[key])
        return {**self.config, "text_cfg": text}

    def recipe(self) -> dict[str, Any]:
        """Return everything besides architecture and weights that determines embeddings."""
        tokenizer = self.tokenizer or self.config["text_cfg"].get("hf_tokenizer_name")
        return {
            "preprocess": {name: list(v) if isinstance(v, tuple) else v for name, v in self.preprocess.items()},
            "quick_gelu": self.quick_gelu,
            "context_length": self.context_length,
            "tokenizer": _folder_identity(tokenizer) if tokenizer else None,
        }


def model_source(
    architecture: str, pretrained: str | None, settings: WeightSettings, cache_dir: str | None = None
) -> ModelSource:
    """Resolve a model; downloads nothing but a repository's configuration.

    Args:
        architecture: a name from `open_clip.list_models()`, `hf-hub:org/name` or `hf-hub:org/name@revision`, or
            `local-dir:` and a folder.
        pretrained: a tag, a file, or None for random weights or the repository's or folder's own.
        settings: preprocessing, sizes and tokenizer of the weights.
        cache_dir: folder for downloads; None is the hub's own cache.

    Raises:
        ModelError: an unknown name, a missing or broken file, or an invalid setting.
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
        # Use the tag's activation: open_clip only warns if the architecture's configuration has the other one.
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
    """Return a suggestion of known names close to an unknown one, for errors; empty if none is close."""
    by_lower = {known.lower(): known for known in names}
    close = [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=4, cutoff=0.5)]
    return f" (closest: {', '.join(close)})" if close else ""


def _repository(name: str, cache_dir: str | None) -> Repository:
    """Find a repository in open_clip's layout. Raises ModelError if there is none, or it has another layout."""
    try:
        return Repository.of(name, CONFIG_FILE, cache_dir)
    except ModelError as error:
        if not isinstance(error.__cause__, EntryNotFoundError) or isinstance(error.__cause__, LocalEntryNotFoundError):
            raise
        raise ModelError(
            f"model.architecture={HUB}{name} has no {CONFIG_FILE}, so it is none of open_clip's: say "
            f"{_of_transformers(name)}"
        ) from error


def _of_transformers(name: str) -> str:
    return f"model=transformers model.id={name} if it is a model of transformers"


def _packaged(architecture: str, settings: WeightSettings, cache_dir: str | None) -> ModelSource:
    """Resolve a model whose configuration lies beside its weights, in a folder or on the hub."""
    repository = None
    if architecture.startswith(HUB):
        repository = _repository(architecture.removeprefix(HUB), cache_dir)
        file = repository.folder / CONFIG_FILE
    else:
        file = user_path(architecture.removeprefix(FOLDER)) / CONFIG_FILE
        if not file.is_file():
            raise ModelError(
                f"model.architecture={architecture}: there is no {file}; give a folder that has it and the weights, as "
                f"open_clip publishes its models, or say {_of_transformers(architecture.removeprefix(FOLDER))}"
            )
    config = read_config(file).get("model_cfg", {})
    if missing := [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in config]:
        raise ModelError(f"{file} has no {missing[0]} in its model_cfg: is it open_clip's?")
    weights = None
    if repository is None:
        if (found := _find_checkpoint_in_dir(file.parent)) is None:
            raise ModelError(f"{file.parent} has no weights beside its {CONFIG_FILE}: *.safetensors, *.bin or *.pth")
        weights = Path(found)
        _check_chosen(weights)
    source = ModelSource(f"{FOLDER}{file.parent}", config, {}, repository=repository, weights=weights)
    brought = settings_beside(file)
    if repository is not None:  # which of the tokenizer's files are cached already is arbitrary
        brought = replace(brought, tokenizer=None)
    return _completed(source, settings, brought)


def _check_chosen(weights: Path) -> None:
    """Raise ModelError if open_clip took the first of several files, such as epochs or shards, by its name alone."""
    others = sorted(weights.parent.glob(f"*{weights.suffix}"))
    if len(others) > 1 and weights.stem not in OWN_NAMES:
        raise ModelError(
            f"{weights.parent} has several files of weights, {', '.join(file.name for file in others[:3])}"
            f"{' and more' if len(others) > 3 else ''}: call the one to load {WEIGHTS[0]} (of shards, write one file with "
            "safetensors.torch.save_file)"
        )


def _completed(
    source: ModelSource, settings: WeightSettings, brought: WeightSettings, quick_gelu: bool = False
) -> ModelSource:
    """Apply settings to a source: `settings` take precedence over the reference tag's, and these over `brought`."""
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
    """Return the settings of the tag named by `preprocess_of`. Raises ModelError if there is no such tag."""
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
    if (path := user_path(pretrained)).is_file():
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


def _folder_identity(name: str) -> str:
    """Return a model's or tokenizer's id on the hub, or the digest of its folder's configurations and vocabularies."""
    if not Path(name).is_dir():
        return name
    return files_fingerprint({f.name: f for f in Path(name).iterdir() if f.suffix in (".json", ".txt", ".model")})


def _check_same_width(file: Path, config: dict[str, Any], architecture: str) -> None:
    """Raise ModelError if the embedding width in a configuration beside the weights is another model's."""
    width = read_config(file).get("model_cfg", {}).get("embed_dim", config["embed_dim"])
    if width != config["embed_dim"]:
        raise ModelError(
            f"{file} says embed_dim={width}, and {architecture} has {config['embed_dim']}: choose the architecture that it "
            f"describes, model.architecture=local-dir:{file.parent}, or put the weights into a folder of their own"
        )
