"""Generator options (`generator=`): models that generate the images of Section 4.3."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from PIL import Image, ImageOps

from mmmono.case_studies.generators import Generator, embedding_decoder
from mmmono.case_studies.generators.diffusers_pipelines import (
    PipelineSettings,
    check_pipeline,
    check_settings,
    check_width,
)
from mmmono.case_studies.generators.flow import FlowPlan
from mmmono.case_studies.generators.sd2 import StableDiffusion2, StableDiffusion2Settings
from mmmono.case_studies.generators.sd2_unclip import StableUnCLIP, StableUnCLIPSettings
from mmmono.core.artifacts import Artifact
from mmmono.core.errors import ConfigError
from mmmono.core.extras import need
from mmmono.core.fingerprints import unchanged, weights_identity
from mmmono.core.shown import as_typed
from mmmono.features import MODALITIES
from mmmono.features.rows import prepare
from mmmono.pipeline.images import SplitImages, print_missing
from mmmono.vlm import Encoder, OpenCLIPEncoder

if TYPE_CHECKING:
    from mmmono.pipeline.workspace import Workspace


@dataclass(kw_only=True, frozen=True)
class GeneratorOption(ABC):
    """Base class of generator options: identify a generator without loading it, and load it when needed.

    Attributes:
        trained_here: whether it is trained on first use, so that it needs the features of the training split.
    """

    trained_here: ClassVar[bool] = False

    @property
    def joint(self) -> bool:
        """Whether it draws from embeddings in the joint space, see `Generator`; known before it is loaded."""
        return True

    @abstractmethod
    def check(self, workspace: Workspace) -> None:
        """Check settings and weights before any heavy computation. Raises ConfigError or ModelError."""

    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """Everything that determines the generated images, except the model and the training pairs."""

    def training_recipe(self, workspace: Workspace) -> dict[str, Any]:
        """The training pairs, for recipes; empty for pretrained generators."""
        return {}

    @abstractmethod
    def load(self, workspace: Workspace, encoder: Encoder) -> Generator:
        """Load the generator; train it first if it is not pretrained."""


@dataclass(kw_only=True, frozen=True)
class EmbeddingDecoder(GeneratorOption, FlowPlan):
    """`generator=embedding_decoder`: a small flow model, trained on the training split's images and embeddings.

    Attributes:
        max_pairs: number of pairs of the training split that it is trained on, the first ones.
        seed: seed of initialization and training.
        steps, guidance: of the generation, see `embedding_decoder.EmbeddingDecoder`.
    """

    trained_here: ClassVar[bool] = True

    max_pairs: int
    seed: int
    steps: int
    guidance: float

    def check(self, workspace: Workspace) -> None:
        """Raise ConfigError if a size is not positive, another number is negative, or the dataset has no images."""
        for name in ("pixels", "components", "width", "depth", "train_steps", "batch_size", "lr", "max_pairs", "steps"):
            if (value := getattr(self, name)) <= 0:
                raise ConfigError(f"generator.{name}={as_typed(value)} must be positive")
        for name in ("embedding_noise", "guidance"):
            if (value := getattr(self, name)) < 0:
                raise ConfigError(f"generator.{name}={as_typed(value)} must be at least 0")
        workspace.dataset.check_images(workspace.settings.training.split)

    def recipe(self) -> dict[str, Any]:
        """All settings."""
        return {"generator": "embedding_decoder", **asdict(self)}

    def training_recipe(self, workspace: Workspace) -> dict[str, Any]:
        """Recipe of the training split's features."""
        return {"train": workspace.features(workspace.settings.training.split).recipe}

    def load(self, workspace: Workspace, encoder: Encoder) -> Generator:
        """Load the decoder; train it first unless it exists."""
        folder = self.artifact(workspace, encoder).path
        return embedding_decoder.EmbeddingDecoder(
            folder, encoder, device=workspace.device, steps=self.steps, guidance=self.guidance
        )

    def artifact(self, workspace: Workspace, encoder: Encoder) -> Artifact:
        """Return the decoder for the workspace's features, trained unless it exists."""
        train = workspace.features(workspace.settings.training.split)
        normalize = workspace.settings.features.normalize
        recipe = {
            "features": train.recipe, "normalize": normalize, "plan": self.plan_recipe(),
            "max_pairs": self.max_pairs, "seed": self.seed,
        }  # fmt: skip

        def make(directory: Path) -> None:
            rows, images = self._images(workspace, min(len(train.view), self.max_pairs), directory)
            image, text = (
                prepare(train.view.gather(modality, rows), normalize, "cpu", train.view.origin(modality, rows))
                for modality in MODALITIES
            )
            pairs = embedding_decoder.EmbeddedImages(images, image, text, encoder.fingerprint, normalize)
            embedding_decoder.train_embedding_decoder(directory, pairs, self, self.seed)

        return workspace.artifacts.build("models", f"embedding_decoder-{train.store.path.name}", recipe, make)

    def _images(self, workspace: Workspace, count: int, directory: Path) -> tuple[np.ndarray[Any, Any], torch.Tensor]:
        """Rows of the readable images among the first `count` pairs, and these, uint8 `[pairs, pixels, pixels, 3]`."""
        source = SplitImages(workspace, workspace.settings.training.split)
        images = np.empty((count, self.pixels, self.pixels, 3), np.uint8)
        rows: list[int] = []
        for row, pair in source.pairs(range(count), "images for the embedding decoder"):
            if pair is not None:
                fitted = ImageOps.fit(pair.image, (self.pixels,) * 2, Image.Resampling.LANCZOS)
                images[len(rows)] = np.asarray(fitted)
                rows.append(row)
        source.report(directory)
        print_missing(directory)
        return np.array(rows), torch.from_numpy(images[: len(rows)])


@dataclass(kw_only=True, frozen=True)
class Diffusers(GeneratorOption, PipelineSettings):
    """Base class for diffusers pipelines, each trained with one specific encoder.

    Attributes:
        pipeline_class: class name of the pipeline in its model_index.json.
        encoder: open_clip's name of the architecture that it was trained with.
    """

    pipeline_class: ClassVar[str]

    encoder: str

    def check(self, workspace: Workspace) -> None:
        """Check that the model is the generator's encoder, that weights are available, and that settings are valid."""
        need("this generator", "diffusers")
        check_settings(self.dtype, self.cpu_offload, workspace.device)
        if self.steps is None or self.steps < 1:
            raise ConfigError(f"generator.steps={as_typed(self.steps)} must be at least 1")
        if self.guidance_scale is None:
            raise ConfigError("generator.guidance_scale=null must be a number")
        for name in ("height", "width"):
            if (pixels := getattr(self, name)) is not None and (pixels < 8 or pixels % 8):
                raise ConfigError(f"generator.{name}={pixels} must be a multiple of 8 pixels, or null for its default")
        model = workspace.model
        if model.open_clip_name != self.encoder:
            option = "clip_vit_h14" if self.encoder == "ViT-H-14" else f"open_clip model.architecture={self.encoder}"
            own = model.open_clip_name
            other = f"; or say generator.encoder={own}, if its weights were trained with this model" if own else ""
            raise ConfigError(
                f"this generator was trained with {self.encoder}: a partition of model={model.name} says nothing about it. "
                f"Make the right one, here and in experiments/mds.py, with model={option} dataset={workspace.dataset_name}"
                f"{other}"
            )
        check_pipeline(self.weights, self.pipeline_class)

    def recipe(self) -> dict[str, Any]:
        """Settings and identity of the weights, without settings of the device."""
        settings = asdict(self)
        del settings["cpu_offload"]
        return {"generator": type(self).__name__, **settings, "weights": self.identity}

    @cached_property
    def identity(self) -> str:
        """What identifies the weights, when it was first asked for."""
        return weights_identity(self.weights)

    def load(self, workspace: Workspace, encoder: Encoder) -> Generator:
        """Load the pipeline from the hub or a folder. Raises ModelError if a folder was changed since `identity`."""
        assert isinstance(encoder, OpenCLIPEncoder)  # see `check`
        files = f"the files of generator.weights={self.weights}"
        with unchanged(self.identity, lambda: weights_identity(self.weights), files):
            return self.pipeline(encoder, workspace.device)

    @abstractmethod
    def pipeline(self, encoder: OpenCLIPEncoder, device: str) -> Generator:
        """Load the pipeline; callers use `load`."""


@dataclass(kw_only=True, frozen=True)
class SD2(Diffusers, StableDiffusion2Settings):
    """`generator=sd2`: Stable Diffusion 2, conditioned on text tokens."""

    pipeline_class: ClassVar[str] = "StableDiffusionPipeline"

    @property
    def joint(self) -> bool:
        """Whether tokens are projected into the joint space."""
        return self.projected

    def check(self, workspace: Workspace) -> None:
        """Check also that dictionaries are applied in the joint space only, for which they are trained."""
        if not self.projected and any(spec.made for spec in workspace.specs.values()):
            raise ConfigError(
                f"features={','.join(workspace.specs)} with generator=sd2: dictionaries are made for the joint space, "
                "which tokens are not in: set features=raw with features.center=none, or generator.projected=true"
            )
        super().check(workspace)
        check_width(self.weights, "text_encoder", "hidden_size", workspace.model.text_width)

    def pipeline(self, encoder: OpenCLIPEncoder, device: str) -> Generator:
        """Load Stable Diffusion 2."""
        return StableDiffusion2(self, encoder, device)


@dataclass(kw_only=True, frozen=True)
class SD2UnCLIP(Diffusers, StableUnCLIPSettings):
    """`generator=sd2_unclip`: Stable Diffusion 2 unCLIP, conditioned on an image embedding."""

    pipeline_class: ClassVar[str] = "StableUnCLIPImg2ImgPipeline"

    def check(self, workspace: Workspace) -> None:
        """Check also that the embeddings fit the pipeline."""
        super().check(workspace)
        check_width(self.weights, "image_encoder", "projection_dim", workspace.model.dim)

    def pipeline(self, encoder: OpenCLIPEncoder, device: str) -> Generator:
        """Load Stable Diffusion 2 unCLIP."""
        return StableUnCLIP(self, encoder, device)
