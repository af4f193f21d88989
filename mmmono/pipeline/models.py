"""Model groups: which encoder a `model=` option means, and how it is told apart without loading it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip

from mmmono.core.artifacts import Artifact, Artifacts, file_fingerprint
from mmmono.core.errors import ModelError
from mmmono.data import OpenMojiPairs, SkippedPair
from mmmono.data.pairs import in_train_split
from mmmono.vlm import DualEncoder, load_emojiclip, load_open_clip
from mmmono.vlm.declip import CONFIGS, load_declip
from mmmono.vlm.emojiclip import fit_emojiclip


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
    """Any model open_clip knows, with a pretrained tag or a local checkpoint."""

    architecture: str
    pretrained: str
    force_quick_gelu: bool = False

    def recipe(self) -> dict[str, Any]:
        """Architecture and weights: a tag by its name, a file by its content."""
        local = Path(self.pretrained).is_file()
        return {
            "architecture": self.architecture,
            "pretrained": file_fingerprint(Path(self.pretrained)) if local else self.pretrained,
            "force_quick_gelu": self.force_quick_gelu,
        }

    @property
    def dim(self) -> int | None:
        """As open_clip's configuration has it."""
        config = open_clip.get_model_config(self.architecture)
        return config["embed_dim"] if config else None

    def load(self, artifacts: Artifacts, device: str) -> DualEncoder:
        """Through open_clip."""
        return load_open_clip(
            self.architecture,
            self.pretrained,
            name=self.name,
            force_quick_gelu=self.force_quick_gelu,
            device=device,
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
        """As in the configuration that comes with mmmono; the ViT of the 88 M release is wider."""
        return _shipped_dim(self.name)

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


def text_width(architecture: str) -> int | None:
    """Width of the tokens in the text tower of an open_clip architecture, as its configuration has it."""
    config = open_clip.get_model_config(architecture)
    return config["text_cfg"].get("width") if config else None
