"""Model groups: which encoder a `model=` option means, and how it is told apart without loading it."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mmmono.core.artifacts import Artifact, Artifacts
from mmmono.core.errors import ModelError
from mmmono.core.fingerprints import file_fingerprint
from mmmono.data import OpenMojiPairs, SkippedPair
from mmmono.data.pairs import in_train_split
from mmmono.vlm import DualEncoder, load_emojiclip, load_open_clip
from mmmono.vlm.declip import CONFIGS, declip_dim, load_declip
from mmmono.vlm.emojiclip import fit_emojiclip
from mmmono.vlm.sources import FOLDER, HUB, ModelSource, model_source
from mmmono.vlm.weight_settings import WeightSettings


@dataclass(kw_only=True)
class Model(ABC):
    """An encoder that can be identified, and loaded when it is needed."""

    name: str

    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """Everything that determines the embeddings. Raises ModelError if a checkpoint is not there."""

    @property
    @abstractmethod
    def dim(self) -> int | None:
        """Width of the joint space, told without weights; None where that is not known."""

    @abstractmethod
    def load(self, artifacts: Artifacts, device: str) -> DualEncoder:
        """The encoder, on the device."""


@dataclass(kw_only=True)
class OpenCLIP(Model):
    """Any model open_clip can build: with a tag, a local checkpoint, a repository's or folder's weights, or random ones.

    Attributes:
        architecture: a name of open_clip's, `hf-hub:org/name`, or `local-dir:` and a folder.
        pretrained: a tag, a file, or None for random weights; empty where the architecture brings its own.
        force_quick_gelu: whether the weights want QuickGELU; a tag knows it by itself.
        seed: of random weights.
        preprocess_of: see `WeightSettings`, as for the ones after it.
    """

    architecture: str
    pretrained: str | None = ""
    force_quick_gelu: bool | None = None
    seed: int = 0
    preprocess_of: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    interpolation: str | None = None
    resize_mode: str | None = None
    image_size: int | Sequence[int] | None = None
    context_length: int | None = None
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        packaged = self.architecture.startswith((HUB, FOLDER))
        # Names are parts of folders' names.
        given = Path(self.name).absolute().name if packaged and self.name == self.architecture else self.name
        self.name = re.sub(r"[^\w.+-]+", "-", given).strip("-") or "model"

    def recipe(self) -> dict[str, Any]:
        """What determines the embeddings: weights by a tag's or repository's name, or by a file's content."""
        source = self._source
        if source.tag:
            weights: Any = self.pretrained
        elif source.repository is not None:
            weights = source.repository
        else:
            weights = file_fingerprint(source.weights) if source.weights else {"random": self.seed}
        # A folder is known by what is in it, not by where it lies.
        built = source.config if source.architecture.startswith(FOLDER) else source.architecture
        return {"architecture": built, "pretrained": weights, **source.recipe()}

    @property
    def dim(self) -> int | None:
        """As the configuration has it; None where it cannot be had."""
        try:
            return self._source.dim
        except ModelError:
            return None

    @property
    def text_width(self) -> int | None:
        """Width of the text tower's tokens; None where the configuration does not say."""
        return self._source.config["text_cfg"].get("width")

    def load(self, artifacts: Artifacts, device: str) -> DualEncoder:
        """Through open_clip."""
        self._check_given()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return load_open_clip(
                self.architecture, self.pretrained or None, name=self.name, device=device, settings=self._settings
            )

    @property
    def _settings(self) -> WeightSettings:
        known = {f.name: getattr(self, f.name) for f in fields(WeightSettings) if hasattr(self, f.name)}
        return WeightSettings(**known, quick_gelu=self.force_quick_gelu)

    @cached_property
    def _source(self) -> ModelSource:
        self._check_given()
        return model_source(self.architecture, self.pretrained or None, self._settings)

    def _check_given(self) -> None:
        if self.pretrained == "" and not self.architecture.startswith((HUB, FOLDER)):
            raise ModelError(
                "model.pretrained is not given: choose a tag of open_clip.list_pretrained(), the path of a checkpoint, or "
                "null for random weights"
            )


@dataclass(kw_only=True)
class DeCLIP(Model):
    """DeCLIP's released checkpoints, in open_clip's model."""

    checkpoint: str

    def recipe(self) -> dict[str, Any]:
        """Architecture, and the checkpoint by its content."""
        path = Path(self.checkpoint)
        if not path.is_file():
            raise ModelError(
                f"model.checkpoint={self.checkpoint} is no file: download the checkpoint that "
                "github.com/Sense-GVT/DeCLIP links to and give its path"
            )
        return {"architecture": self.name, "checkpoint": file_fingerprint(path)}

    @property
    def dim(self) -> int:
        """As the checkpoint has it, which is wider for the 88 M release; as is usual where it is not there."""
        path = Path(self.checkpoint)
        return declip_dim(path) if path.is_file() else _shipped_dim(self.name)

    def load(self, artifacts: Artifacts, device: str) -> DualEncoder:
        """Through the key converter."""
        return load_declip(self.name, Path(self.checkpoint), device=device)


@dataclass(kw_only=True)
class EmojiCLIP(Model):
    """The embedded default, fitted on OpenMoji's training split on first use."""

    seed: int = 0

    def recipe(self) -> dict[str, Any]:
        """Fitted with its own seed on the training emoji of OpenMoji's default split."""
        return {"architecture": "emojiclip", "seed": self.seed, "data": OpenMojiPairs(captions="first").fingerprint()}

    @property
    def dim(self) -> int:
        """As in the configuration that comes with mmmono."""
        return _shipped_dim("emojiclip")

    def artifact(self, artifacts: Artifacts) -> Artifact:
        """Fit the heads, unless they are there."""

        def make(directory: Path) -> None:
            source = OpenMojiPairs(captions="first")
            items = (item for part in range(len(source.parts())) for item in source.read(part))
            train = (
                (pair.image, pair.caption)
                for pair in items
                if not isinstance(pair, SkippedPair) and in_train_split(source.group(pair.key))
            )
            fit_emojiclip(directory, train, seed=self.seed)

        return artifacts.build("models", self.name, self.recipe(), make)

    def load(self, artifacts: Artifacts, device: str) -> DualEncoder:
        """Through open_clip, from the fitted artifact."""
        return load_emojiclip(self.artifact(artifacts).path, device=device)


def _shipped_dim(architecture: str) -> int:
    return int(json.loads((CONFIGS / f"{architecture}.json").read_text())["embed_dim"])
