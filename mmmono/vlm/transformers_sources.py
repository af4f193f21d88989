"""Resolves a model of transformers, on the hub or in a folder, without loading its weights.

Only safetensors are taken: pickled weights can run code when they are read. Code in a repository is never run either.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from transformers import AutoConfig
from transformers.utils import logging

from mmmono.core.errors import ModelError
from mmmono.core.extras import need
from mmmono.core.files import user_path
from mmmono.core.fingerprints import file_fingerprint, files_fingerprint
from mmmono.vlm.hub import hub_or_cache, hub_reason
from mmmono.vlm.repositories import NotReachableError, Repository
from mmmono.vlm.weight_settings import CONFIG_FILE as OPEN_CLIP_CONFIG
from mmmono.vlm.weight_settings import FOLDER, HUB

CONFIG = "config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
SENTENCEPIECE = "spiece.model"  # vocabulary of SigLIP's tokenizer
IMAGES = ("preprocessor_config.json", "processor_config.json")  # settings of the image processor, in either
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", SENTENCEPIECE, "tokenizer.model")
OTHERS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and progress bars of transformers: problems are raised as errors."""
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


@dataclass(frozen=True)
class Family:
    """What transformers' configurations of a model type do not say.

    Attributes:
        padded: whether captions are padded to the whole context length, as the model was trained, rather than to the
            longest of a batch.
        context_length: tokens per caption that its processor allows; None if that is what its text tower has.
        version: raised whenever embeddings of the same weights change.
    """

    padded: bool = False
    context_length: int | None = None
    version: int = 1


FAMILIES: Mapping[str, Family] = {
    "clip": Family(),
    "siglip": Family(padded=True),  # the fixed resolutions of SigLIP 2 as well
    "siglip2": Family(padded=True),  # SigLIP 2 with any aspect ratio (NaFlex)
    "aimv2": Family(version=2),
    "align": Family(context_length=64),
}


@dataclass(frozen=True)
class TransformersSource:
    """A model of transformers that can be loaded.

    Attributes:
        id: `organisation/name`, `organisation/name@revision`, or a folder.
        folder: where its configuration lies, and the files of its processor; the weights too, once they are fetched.
        repository: the hub repository; None for a folder.
    """

    id: str
    folder: Path
    repository: Repository | None = None

    @cached_property
    def config(self) -> Any:
        """The configuration. Raises ModelError if it is broken."""
        try:
            with quiet():
                return AutoConfig.from_pretrained(self.folder)
        except Exception as error:  # configurations of any version can fail anywhere in transformers
            raise ModelError(
                f"model.id={self.id}: its {CONFIG} is not understood ({hub_reason(error)[:200]})"
            ) from error

    @property
    def family(self) -> Family:
        """What is known about the model's type."""
        return FAMILIES[self.config.model_type]

    @property
    def dim(self) -> int:
        """Width of the joint embedding space."""
        if self.config.model_type in ("siglip", "siglip2"):
            return int(self.config.vision_config.hidden_size)
        return int(self.config.projection_dim)

    @property
    def blocks(self) -> tuple[int | None, int | None]:
        """Numbers of blocks of the image and the text tower; None if a tower is no stack of blocks."""
        towers = self.config.vision_config, self.config.text_config
        image, text = (getattr(tower, "num_hidden_layers", None) for tower in towers)
        return (None if self.config.model_type == "align" else image), text

    @property
    def text_width(self) -> int:
        """Width of the text tower's tokens."""
        return int(self.config.text_config.hidden_size)

    def context_length(self, given: int | None) -> int:
        """Return the number of tokens per caption.

        Args:
            given: the setting `model.context_length`; None for the model's own length.

        Raises:
            ModelError: it is none, or more than the text tower has positions for.
        """
        most = int(self.config.text_config.max_position_embeddings)
        if given is None:
            return min(most, self.family.context_length or most)
        if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= most:
            raise ModelError(
                f"model.context_length={given} must be a whole number from 1 to {most}, the positions that the text tower "
                f"of {self.id} has"
            )
        return given

    @property
    def weights(self) -> dict[str, str]:
        """Digests of the files with weights, one or several, by name. Downloads at most the list of the shards' names.

        On the hub they are looked up once, in a folder each time, since files there may change.

        Raises:
            ModelError: there are none, or only pickles, or they cannot be looked up.
        """
        return self._look_up() if self.repository is None else self._weights_on_hub

    @cached_property
    def _weights_on_hub(self) -> dict[str, str]:
        return self._look_up()

    def _look_up(self) -> dict[str, str]:
        with self._hub():
            found = self._first(WEIGHTS, INDEX)
            if found is None:
                raise ModelError(f"model.id={self.id} {self._without_weights()}")
            name, digest = found
            return {name: digest} if name == WEIGHTS else {name: digest, **self._shards()}

    def _shards(self) -> dict[str, str]:
        try:
            names = sorted(set(json.loads(self._file(INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelError(f"model.id={self.id}: its {INDEX} names no files: fetch it again") from error
        shards = {name: self._first(name) for name in names}
        if missing := next((name for name, found in shards.items() if found is None), None):
            raise ModelError(f"model.id={self.id} lacks {missing}, which its {INDEX} names: fetch it again")
        return {name: found[1] for name, found in shards.items() if found is not None}

    def _without_weights(self) -> str:
        if (pickles := self._first(*PICKLES)) is None:
            return (
                f"has no weights: {WEIGHTS} or {INDEX} is wanted; if they have another name, call them so in a copy of the "
                "folder (of a repository, 'hf download org/name --local-dir folder'), and give that"
            )
        return (
            f"has its weights as {pickles[0]} alone, and pickles, which can run code, are not read: if you trust it, write "
            "safetensors once with transformers.AutoModel.from_pretrained(id, use_safetensors=False)"
            ".save_pretrained(folder), copy its processor's and tokenizer's files there, and give the folder; or take the "
            "conversion that the hub offers, such as model.id=org/name@refs/pr/1"
        )

    def recipe(self) -> dict[str, Any]:
        """Return everything in the files that determines embeddings: digests of weights, configuration and processor.

        Downloads small files, and no weights. Raises ModelError if a file is missing or cannot be looked up.
        """
        weights = self.weights
        files = files_fingerprint({CONFIG: self.folder / CONFIG, **self._processor_files()})
        version = {"version": self.family.version} if self.family.version > 1 else {}
        return {"architecture": self.config.model_type, "weights": weights, "files": files, **version}

    def fetch(self) -> Path:
        """Return the folder with all files, downloaded unless they are cached."""
        for name in (*self.weights, *self._processor_files()):
            self._file(name)
        return self.folder

    def _processor_files(self) -> dict[str, Path]:
        with self._hub():
            # Without these, transformers makes an image processor with other settings, or a tokenizer without words.
            for what, wanted in (("image processor", IMAGES), ("tokenizer", VOCABULARIES)):
                if self._first(*wanted) is None:
                    raise ModelError(
                        f"model.id={self.id} lacks the files of its {what}, {' or '.join(wanted)}: save it beside the "
                        "weights, transformers.AutoProcessor.from_pretrained(id of the base model).save_pretrained(folder)"
                    )
            names = [name for name in (*IMAGES, *VOCABULARIES, *OTHERS) if self._is_there(name)]
            if SENTENCEPIECE in names:
                need(f"the tokenizer of model.id={self.id}", "sentencepiece", error=ModelError)
            return {name: self._file(name) for name in names}

    def _hub(self) -> AbstractContextManager[None]:
        """Decide once for several files whether the hub can be reached; a folder needs none."""
        return nullcontext() if self.repository is None else hub_or_cache()

    def _is_there(self, name: str) -> bool:
        try:
            return self._first(name) is not None
        except NotReachableError:  # what was never downloaded
            return False

    def _first(self, *names: str) -> tuple[str, str] | None:
        """Return name and digest of the first of several files that there is."""
        if self.repository is not None:
            return self.repository.first(*names)
        found = next((name for name in names if (self.folder / name).is_file()), None)
        return None if found is None else (found, file_fingerprint(self.folder / found))

    def _file(self, name: str) -> Path:
        return self.folder / name if self.repository is None else self.repository.download(name)


def transformers_source(id: str) -> TransformersSource:
    """Resolve a model; downloads nothing but its configuration.

    Args:
        id: `organisation/name` or `organisation/name@revision` on the hub, or a folder as `save_pretrained` writes it.

    Raises:
        ModelError: there is no such model, it cannot be reached, or its type is not known here.
    """
    path = user_path(id)
    if path.is_dir():
        source = TransformersSource(id, path)
        if not (path / CONFIG).is_file():
            raise ModelError(
                f"model.id={id} has no {CONFIG}{_open_clips((path / OPEN_CLIP_CONFIG).is_file(), FOLDER, id)}"
            )
    elif path.is_absolute() or id.startswith((".", "~")):
        raise ModelError(f"model.id={id} is no folder: give one that save_pretrained wrote, or an id such as org/name")
    else:
        source = _on_hub(id)
    kind = _model_type(source.folder / CONFIG)
    if kind not in FAMILIES:
        raise ModelError(
            f"model.id={id} is of the type {kind!r}, and {', '.join(FAMILIES)} are known, which embed images and texts into "
            "one space: choose such a model, or one of open_clip with model=open_clip"
        )
    return source


def _on_hub(id: str) -> TransformersSource:
    try:
        repository = Repository.of(id, CONFIG)
    except ModelError as error:
        if not isinstance(error.__cause__, EntryNotFoundError) or isinstance(error.__cause__, LocalEntryNotFoundError):
            raise ModelError(f"model.id={id}: {error}") from error
        raise ModelError(f"model.id={id} has no {CONFIG}{_open_clips(_has_open_clips(id), HUB, id)}") from error
    return TransformersSource(id, repository.folder, repository)


def _has_open_clips(id: str) -> bool:
    try:
        Repository.of(id, OPEN_CLIP_CONFIG)
    except ModelError:
        return False
    return True


def _open_clips(there: bool, prefix: str, id: str) -> str:
    if there:
        return f", but open_clip's {OPEN_CLIP_CONFIG}: say model=open_clip model.architecture={prefix}{id}"
    return ": give a model of transformers"


def _model_type(file: Path) -> str:
    """Return the type in a configuration. Raises ModelError if it is no JSON object."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} is no readable JSON ({error}): fetch it again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} is no configuration of transformers: it must be an object with a model_type")
    return str(content.get("model_type", ""))
