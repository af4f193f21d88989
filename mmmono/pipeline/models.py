"""Model options (`model=`): the encoder of each option, identified without loading it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias

import torch

from mmmono.core.artifacts import Artifact, Artifacts
from mmmono.core.errors import ConfigError, ModelError
from mmmono.core.files import user_path
from mmmono.core.fingerprints import file_fingerprint
from mmmono.core.versions import version_of
from mmmono.data import DrawingPairs, IconPairs, OpenMojiPairs
from mmmono.data.pairs import PairSource, SplitShares
from mmmono.features import Manifest, extract_features
from mmmono.features.extraction_settings import ExtractionSettings
from mmmono.features.outputs import features_from_outputs
from mmmono.pipeline.downloads import Download
from mmmono.pipeline.model import Model
from mmmono.pipeline.model_names import as_name, last_part
from mmmono.pipeline.tower_outputs import kept_outputs, tower_outputs
from mmmono.pipeline.typed import taken_from
from mmmono.vlm import Encoder
from mmmono.vlm.depth import Depth, cut
from mmmono.vlm.weight_settings import FOLDER, HUB, WEIGHTS, GivenSettings, WeightSettings

if TYPE_CHECKING:
    from mmmono.vlm import OpenCLIPEncoder
    from mmmono.vlm.sources import ModelSource

# What takes open_clip is imported where it is used: most commands build no model.

Drawings: TypeAlias = Literal["openmoji", "icons", "drawings"]
DRAWINGS: Mapping[Drawings, Callable[[], PairSource]] = {  # dataset option → all that it draws
    "openmoji": OpenMojiPairs,
    "icons": IconPairs,
    "drawings": DrawingPairs,
}


@dataclass(kw_only=True, frozen=True)
class Layered(Model):
    """Base class of models whose embeddings may come from any layer.

    Attributes:
        layer, projected: see `mmmono.vlm.depth.Depth`.
    """

    layer: int | Sequence[int | None] | None = None
    projected: bool = True

    @property
    def depth(self) -> Depth:
        """Which layer of each tower gives the embeddings. Raises ModelError if the settings are invalid."""
        return Depth(self.layer, self.projected)


@dataclass(kw_only=True, frozen=True)
class OpenCLIP(Layered, GivenSettings):
    """Any model of open_clip, with weights of a tag, a file, a repository or a folder, or with random weights.

    Attributes:
        architecture: name of an open_clip architecture, `hf-hub:org/name` or `hf-hub:org/name@revision`, or `local-dir:`
            and a folder.
        pretrained: a tag, a file, or None for random weights; empty if the architecture includes weights.
        force_quick_gelu: whether the weights need QuickGELU; None to take it from the tag.
        seed: seed of random weights.

    The preprocessing, the input sizes and the tokenizer are those of `GivenSettings`; layer and projected those of
    `Layered`.
    """

    architecture: str
    pretrained: str | None = ""
    force_quick_gelu: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _ = self.depth  # checks its settings
        packaged = self.architecture.startswith((HUB, FOLDER)) and self.name == self.architecture
        object.__setattr__(self, "name", as_name(last_part(self.name) if packaged else self.name))

    def recipe(self) -> dict[str, Any]:
        """Everything that determines the embeddings; weights by name of the tag, or by the content of their file."""
        source = self._source
        weights = self.pretrained if source.tag else source.weights_identity() or {"random": self.seed}
        # Identify a folder by its content, not its path.
        built = source.built() if source.architecture.startswith(FOLDER) else source.architecture
        self.depth.check(*source.blocks)
        return {"architecture": built, "pretrained": weights, **source.recipe(), **self.depth.recipe()}

    @property
    def dim(self) -> int | None:
        """Dimension in the architecture's configuration; None if the configuration is not available."""
        try:
            return self._source.dim if self.projected else self.text_width
        except ModelError:
            return None

    @property
    def open_clip_name(self) -> str | None:
        """The architecture; None if its embeddings are not those of the whole model."""
        return None if self.depth.cuts else self._known_as

    @property
    def text_width(self) -> int | None:
        """Dimension of the text tower's tokens; None if the configuration does not have it."""
        return self._source.config["text_cfg"].get("width")

    @property
    def image_width(self) -> int | None:
        """Dimension of the image tower's tokens; None if the configuration does not have it."""
        return self._source.config["vision_cfg"].get("width")

    def load(self, artifacts: Artifacts, device: str) -> Encoder:
        """Load the encoder through open_clip; from the hub at the commit that the recipe is of."""
        from mmmono.vlm import load_open_clip

        self._check_given()
        architecture = self.architecture
        if architecture.startswith(HUB) and (at := self._source.repository) is not None:
            architecture = f"{HUB}{at.name}@{at.commit}"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            encoder = load_open_clip(architecture, self.pretrained or None, self.name, settings=self._settings)
        cut(encoder, self.depth)
        return encoder.to(device)

    def downloads(self) -> Iterator[Download]:
        """Yield the weights that are downloaded for a tag, or from a repository."""
        if self.architecture.startswith(HUB):
            repository = self.architecture.removeprefix(HUB).partition("@")[0]
            yield Download(f"weights of {self.name}", repository, files=WEIGHTS)
            return
        if not self.pretrained or Path(self.pretrained).exists():
            return
        import open_clip

        tag = open_clip.get_pretrained_cfg(self._known_as, self.pretrained) or {}
        repository, _, name = str(tag.get("hf_hub", "")).rpartition("/")
        if repository:
            yield Download(f"weights of {self.name}", repository, files=(name,) if name else WEIGHTS)

    @property
    def _known_as(self) -> str:
        """open_clip takes ViT-H/14 for ViT-H-14; addresses stay as they are."""
        packaged = self.architecture.startswith((HUB, FOLDER))
        return self.architecture if packaged else self.architecture.replace("/", "-")

    @property
    def _settings(self) -> WeightSettings:
        return replace(taken_from(self, WeightSettings), quick_gelu=self.force_quick_gelu)

    @cached_property
    def _source(self) -> ModelSource:
        from mmmono.vlm.sources import model_source

        self._check_given()
        return model_source(self.architecture, self.pretrained or None, self._settings)

    def _check_given(self) -> None:
        if self.pretrained == "" and not self.architecture.startswith((HUB, FOLDER)):
            raise ModelError(
                "model.pretrained is not given: choose a tag of open_clip.list_pretrained(), the path of a checkpoint, or "
                "null for random weights; architectures hf-hub:org/name and local-dir:/path bring their own"
            )


@dataclass(kw_only=True, frozen=True)
class DeCLIP(Model):
    """DeCLIP's released checkpoints, converted to open_clip.

    Attributes:
        checkpoint: path of the downloaded checkpoint.
    """

    checkpoint: str

    def recipe(self) -> dict[str, Any]:
        """Architecture and fingerprint of the checkpoint. Raises ModelError if the checkpoint is missing."""
        path = user_path(self.checkpoint)
        if not path.is_file():
            raise ModelError(
                f"model.checkpoint={self.checkpoint} is no file: download the checkpoint that "
                "github.com/Sense-GVT/DeCLIP links to and give its path"
            )
        return {"architecture": self.name, "checkpoint": file_fingerprint(path)}

    @property
    def dim(self) -> int:
        """Dimension in the checkpoint (larger for the 88 M release), or the default one if the file is missing."""
        from mmmono.vlm.declip import declip_dim

        path = user_path(self.checkpoint)
        return declip_dim(path) if path.is_file() else _shipped_dim(self.name)

    def load(self, artifacts: Artifacts, device: str) -> Encoder:
        """Load the checkpoint with its keys converted."""
        from mmmono.vlm import load_declip

        return load_declip(self.name, user_path(self.checkpoint), device=device)


@dataclass(kw_only=True, frozen=True)
class DrawingCLIP(Model):
    """The default model, which needs no download: fitted on drawings with their names on first use.

    Attributes:
        drawings: option of the dataset whose training split it is fitted on: openmoji, icons, or drawings for both.
        classes: whether the fit starts from the image tower's own classifier and features of its classes join the pairs, so
            that photographs are placed too.
        temperature: factor of the cosine similarities at the start of the fit. The larger, the farther apart images and
            texts stay: a modality gap as that of a real CLIP.
        seed: of the fit.
        split_seed, train_fraction: which drawings are in the training split; by default those of the dataset in use, so that
            no evaluated drawing is fitted to.
    """

    drawings: Drawings = "drawings"
    classes: bool = True
    temperature: float = 90.0
    seed: int = 0
    split_seed: int = 0
    train_fraction: float = 0.7

    def __post_init__(self) -> None:
        if self.drawings not in DRAWINGS:
            raise ModelError(f"model.drawings={self.drawings} is unknown: choose one of {', '.join(DRAWINGS)}")
        if not 1 <= self.temperature <= 100:
            raise ModelError(
                f"model.temperature={self.temperature:g} must lie between 1 and 100, which is CLIP's bound"
            )

    def recipe(self) -> dict[str, Any]:
        """Seed, whether classes join, and fingerprint and split of the drawings on whose training split it is fitted.

        The versions of the fit and of the towers' outputs are part of it, under any `name`, so that features follow them.
        """
        return {
            "architecture": "drawingclip",
            "versions": {"fit": version_of("models", "drawingclip"), "towers": version_of("towers")},
            "seed": self.seed,
            "classes": self.classes,
            "temperature": self.temperature,
            "data": DRAWINGS[self.drawings]().fingerprint(),
            "split": {"seed": self.split_seed, "train": self.train_fraction},
        }

    def fitted_on(self, dataset: str) -> bool:
        """Whether the model was fitted on the dataset or on a part of it."""
        return (dataset in DRAWINGS and "drawings" in (self.drawings, dataset)) or dataset == self.drawings

    @property
    def dim(self) -> int:
        """Dimension in the configuration that is part of mmmono."""
        return _shipped_dim("drawingclip")

    def artifact(self, artifacts: Artifacts) -> Artifact:
        """Return the model's artifact, fitted unless it exists."""

        def make(directory: Path) -> None:
            from mmmono.vlm import fit_drawingclip
            from mmmono.vlm.drawingclip import Plan

            outputs = tower_outputs(artifacts, DRAWINGS[self.drawings]())
            shares = SplitShares(self.split_seed, self.train_fraction)
            groups = outputs.metadata["group"]
            train = [shares.split_of(group) == "train" for group in groups]
            pairs = outputs.image[train], outputs.text[train]
            fit_drawingclip(directory, *pairs, groups[train].tolist(), Plan(self.seed, self.classes, self.temperature))

        return artifacts.build("models", self.name, self.recipe(), make)

    def extract(
        self, source: PairSource, artifacts: Artifacts, directory: Path, device: str, settings: ExtractionSettings
    ) -> Manifest:
        """Encode all pairs of a source; those that passed through the towers for the fit pass through its heads alone."""
        from mmmono.vlm.tower_outputs import heads_of

        encoder = self.load(artifacts, device)
        if device != "cpu" or (outputs := kept_outputs(artifacts, source, settings)) is None:
            return extract_features(source, encoder, directory, device=device, settings=settings)
        return features_from_outputs(source, outputs, encoder, heads_of(encoder), directory, settings.dtype)

    def load(self, artifacts: Artifacts, device: str) -> OpenCLIPEncoder:
        """Load the fitted artifact, fitting it first if needed."""
        from mmmono.vlm import load_drawingclip

        return load_drawingclip(self.artifact(artifacts).path, device=device)


@dataclass(kw_only=True, frozen=True)
class Unnamed(Model):
    """`model=unnamed`: nothing says which model made embeddings that were there before, or its name alone is known."""

    def recipe(self) -> dict[str, Any]:
        """The name alone."""
        return {"name": self.name}

    @property
    def dim(self) -> None:
        """Unknown: the embeddings tell it."""

    def load(self, artifacts: Artifacts, device: str) -> NoReturn:
        """Raise ConfigError: there is no model."""
        raise ConfigError("nothing is known of the model but its name, and it is needed here: choose it (model=)")


def _shipped_dim(architecture: str) -> int:
    from mmmono.vlm.declip import CONFIGS

    return int(json.loads((CONFIGS / f"{architecture}.json").read_text(encoding="utf-8"))["embed_dim"])
