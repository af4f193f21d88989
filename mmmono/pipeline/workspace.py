"""Make features, dictionaries and results from a configuration; reuse those that exist."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from hydra.utils import instantiate
from jaxtyping import Bool, Float
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from mmmono.core.artifacts import Artifact, Artifacts, address
from mmmono.core.errors import ConfigError, ProcessError
from mmmono.core.modality_names import ModalityNames
from mmmono.core.seeding import seed_everything
from mmmono.dictionaries import Dictionary, DictionaryFeatures
from mmmono.features import ActivationBlock, Features, FeatureSet, Modality, RawFeatures, activations
from mmmono.features.encoded_rows import encoded_rows
from mmmono.features.folding import Folded, OfBlocks, Walk, folded, stored_pairs_and_groups
from mmmono.features.grouping import GroupNumbers
from mmmono.features.selection import FeatureView, Split
from mmmono.modality import DominanceScores, DominanceStream, Partition, load_partition, save_partition
from mmmono.modality.groups import group_sizes, shared_groups
from mmmono.modality.report import FeatureSetDominance
from mmmono.pipeline.datasets import Dataset
from mmmono.pipeline.devices import named_device
from mmmono.pipeline.engines import Engine, Local
from mmmono.pipeline.extracting import FeatureExtraction
from mmmono.pipeline.feature_sets import make_spec
from mmmono.pipeline.groups import compared_groups, counted, store_identity
from mmmono.pipeline.models import Model
from mmmono.pipeline.specs import FeatureSetSpec, Fitted, Trained
from mmmono.pipeline.tracking import current_tracker
from mmmono.pipeline.training import check_training, fit_dictionary, plan_training, train_dictionary
from mmmono.pipeline.training_together import train_together
from mmmono.pipeline.workspace_settings import WorkspaceSettings


class Workspace:
    """Model, dataset, features, dictionaries and results of an entrypoint, made on demand.

    Args:
        cfg: the composed configuration.
        makes: kind of artifact that the entrypoint makes; `+force=true` rebuilds it, with results also scores.
        artifacts: the artifacts root, if not the configuration's default, e.g. a read-only one.

    Raises:
        ConfigError: a setting is invalid; raised before any heavy computation.
    """

    def __init__(self, cfg: DictConfig, makes: str, artifacts: Artifacts | None = None) -> None:
        self.cfg = cfg
        self.settings = WorkspaceSettings(cfg)
        tracker = current_tracker()
        self.artifacts = artifacts or Artifacts(
            cfg.artifacts,
            rebuild=_rebuilt_with(makes) if cfg.get("force") else (),
            listener=lambda artifact: tracker.record(artifact, is_product=artifact.kind == makes),
        )
        self.dataset: Dataset = instantiate(cfg.dataset)
        self.model: Model = self.dataset.maker(instantiate(cfg.model))
        self.dataset_name = self.dataset.name
        self.seed: int = cfg.seed
        self.device = named_device(cfg.device)
        self.engine: Engine = instantiate(cfg.engine) if "engine" in cfg else Local()
        if "training" in cfg:
            check_training(cfg, self.specs, self.artifacts, makes)
        if "partition" in cfg:
            self.partition_settings()
        self._features: dict[str, Features] = {}
        self._trained: dict[tuple[str, int], Artifact] = {}  # together
        self._feature_sets: dict[tuple[str, int], FeatureSet] = {}
        self._dominance: dict[tuple[str, int], FeatureSetDominance] = {}
        seed_everything(cfg.seed)

    def features(self, split: Split) -> Features:
        """Return the split's features, extracted first if they do not exist."""
        if split not in self._features:
            self._features[split] = self._make_features(split)
        return self._features[split]

    def _make_features(self, split: Split) -> Features:
        self.dataset.check(split)
        if (existing := self.dataset.feature_store(self.artifacts, self.model.name)) is not None:
            return self._features_of(existing, split)
        FeatureSetSpec.check_all(self.specs.values(), lambda: self.dataset.dim_of(self.model.dim), self.settings)
        extraction = self.extraction(split, self.engine.device_type(self.device))
        if (made := self.engine.extract(extraction, self.dataset.limit)) is None:
            raise ProcessError(
                f"the features of {self.title_of(split)} are not complete, because other processes still extract them: run "
                "this again when they have ended"
            )
        features = self._features_of(made, split)
        if (manifest := features.view.store.manifest) is not None:
            extraction.settings.allowance.check(manifest)
        return features

    def extraction(self, split: Split, encoded_on: str | None = None) -> FeatureExtraction:
        """Return how the features of a split are extracted.

        Args:
            split: the split.
            encoded_on: kind of device that encodes, if not this process's.

        Raises:
            ConfigError: a setting is invalid.
        """
        section = self.settings.extraction
        settings = section.on(encoded_on or self.device)
        name = f"{self.model.name}-{self.dataset_name}"
        return FeatureExtraction(
            self.artifacts, self.model, self.dataset.source(split), name, self.device, settings, section.devices
        )

    def _features_of(self, store: Artifact, split: Split) -> Features:
        opened = self.dataset.opened(store)
        groups = compared_groups(self.artifacts, store, opened, self.dataset.grouping, self.device)
        view = self.dataset.view(opened, split, groups)
        made_of = {**store_identity(store, opened), "split": split, **self.dataset.split_recipe(split)}
        return Features(store, view, split, made_of)

    @cached_property
    def specs(self) -> dict[str, FeatureSetSpec]:
        """The selected feature sets by name."""
        sets = self.cfg.features.sets if "features" in self.cfg else {}
        return {name: make_spec(name, sets[name]) for name in sets}

    def dictionary(self, name: str, seed: int | None = None) -> Artifact:
        """Return a feature set's dictionary, made first if it does not exist; `seed` replaces the run's seed."""
        seed, kind = self.seed if seed is None else seed, self.specs[name]
        train = self.features(self.settings.training.split)
        if isinstance(kind, Fitted):
            return fit_dictionary(self.artifacts, name, kind, train, self.settings.features.normalize, seed)
        assert isinstance(kind, Trained)
        cfg = self.cfg if seed == self.seed else OmegaConf.merge(self.cfg, {"seed": seed})
        assert isinstance(cfg, DictConfig)
        val = self.features(self.validation_split)
        if not (self.settings.training.together and self.artifacts.builds):
            return train_dictionary(self.artifacts, plan_training(name, kind, train, val, cfg))
        if (name, seed) not in self._trained:
            made = train_together(self.artifacts, self.specs, train, val, cfg).items()
            self._trained |= {(one, seed): artifact for one, artifact in made}
        return self._trained[name, seed]

    @property
    def validation_split(self) -> Split:
        """Split on which dictionaries are validated while they train, and by which settings are compared.

        Raises:
            ConfigError: the dataset has no such split.
        """
        chosen = self.settings.training.validation
        if chosen == "auto":
            held_out = self.settings.training.split == "train" and self.dataset.select_fraction > 0
            return "select" if held_out else self.dataset.split
        self.dataset.check(chosen)
        return cast(Split, chosen)

    def feature_set(self, name: str, seed: int | None = None) -> FeatureSet:
        """Return a feature set on the device, ready to encode; `seed` replaces the run's seed."""
        if not self.specs[name].made:
            return RawFeatures(self.features(self.dataset.split).view.dim)
        key = (name, self.seed if seed is None else seed)
        if key not in self._feature_sets:
            dictionary = Dictionary.from_pretrained(self.dictionary(*key).path)
            self._feature_sets[key] = DictionaryFeatures(name, dictionary.to(self.device))
        return self._feature_sets[key]

    def feature_set_recipe(self, name: str, seed: int | None = None) -> dict[str, Any]:
        """Everything that determines a feature set's activations, given the features; `seed` replaces the run's seed."""
        made = {"dictionary": self.dictionary(name, seed).digest} if self.specs[name].made else {}
        return {"name": name, "normalize": self.settings.features.normalize, **made}

    def activations(self, feature_set: FeatureSet, split: Split | None = None) -> Iterator[ActivationBlock]:
        """Stream a feature set's activations over a split, by default the dataset's."""
        view = self.features(split or self.dataset.split).view
        return activations(view, feature_set, normalize=self.settings.features.normalize, device=self.device)

    def folded(
        self,
        feature_set: FeatureSet | None,
        stream: Folded,
        groups: GroupNumbers | None = None,
        view: FeatureView | None = None,
    ) -> Folded:
        """Let a stream see all activations of the dataset's split, in ranges that `engine` folds; see `folded`.

        Args:
            feature_set: the feature set; None for the embeddings as they are stored.
            stream: takes blocks of activations.
            groups: group of each pair, for streams that ask a block for them.
            view: other pairs than the split's.
        """
        view = view or self.features(self.dataset.split).view
        walk = Walk(view, feature_set, self.settings.features.normalize, self.device, groups)
        return folded(stream, walk.by_group(), self.engine)

    def encode_rows(
        self, feature_set: FeatureSet, modality: Modality, positions: np.ndarray[Any, Any], split: Split | None = None
    ) -> Float[Tensor, "rows features"]:
        """Compute a feature set's activations on some pairs of a split, in the given order, on the CPU.

        Args:
            feature_set: the feature set.
            modality: image or text.
            positions: positions of the pairs in the split.
            split: the split, by default the dataset's.
        """
        return torch.cat(list(self.encoded(feature_set, modality, positions, split)))

    def encoded(
        self, feature_set: FeatureSet, modality: Modality, positions: np.ndarray[Any, Any], split: Split | None = None
    ) -> Iterator[Float[Tensor, "rows features"]]:
        """Yield what `encode_rows` returns in blocks, for callers that keep less of it."""
        view = self.features(split or self.dataset.split).view
        return encoded_rows(view, feature_set, modality, positions, self.settings.features.normalize, self.device)

    def dominance(self, name: str, seed: int | None = None) -> FeatureSetDominance:
        """Return scores and partition of a feature set on the dataset's split, made first if they do not exist.

        Args:
            name: name of the feature set.
            seed: replaces the run's seed, for a dictionary trained with another one.

        Raises:
            ConfigError: settings of the score or the partition are invalid.
        """
        key = (name, self.seed if seed is None else seed)
        if key not in self._dominance:
            recipe = self._partition_recipe(*key)

            def make(directory: Path) -> None:
                save_partition(self.score(name, self.feature_set(*key)), directory)

            artifact = self.artifacts.build("partitions", self._partition_name(name), recipe, make)
            self._dominance[key] = load_partition(artifact.path, name)
        return self._dominance[key]

    def partition(self, name: str) -> Partition:
        """Return the classes of a feature set on the dataset's split; see `dominance`."""
        return self.dominance(name).partition

    def score(self, name: str, feature_set: FeatureSet) -> FeatureSetDominance:
        """Score and partition any feature set on the dataset's split, such as a snapshot; `name` is what to call it.

        Raises:
            ConfigError: settings of the score or the partition are invalid.
        """
        settings = self.settings.mds
        groups = shared_groups(self.features(self.dataset.split).view.groups())
        sizes = None if groups is None else group_sizes(groups)
        stream = OfBlocks(DominanceStream(settings.undefined, sizes), stored_pairs_and_groups)
        scores = self.folded(feature_set, stream, groups).result()
        return FeatureSetDominance(name, scores, self.classify(scores.scores, self.live(scores)))

    def live(self, scores: DominanceScores) -> Bool[Tensor, " features"]:
        """Mask of the features that enough groups of pairs activate (`mds.min_pairs`) to be classified."""
        return scores.informative_groups >= self.settings.mds.min_pairs

    def classify(self, scores: Float[Tensor, " features"], live: Bool[Tensor, " features"]) -> Partition:
        """Partition features into classes by the configured rule. Raises ConfigError if settings are invalid."""
        try:
            return self.settings.partition(scores, live)
        except ValueError as error:
            raise ConfigError(f"partition: {error}") from error

    def partitions_recipe(self) -> dict[str, Any]:
        """Recipe entries that determine the selected feature sets and their partitions."""
        return {
            "sets": [self.feature_set_recipe(name) for name in self.specs],
            **self.partition_settings(),
            "partitions": self.partition_digests(self.specs),
        }

    def partition_digests(self, names: Iterable[str]) -> dict[str, str]:
        """Digests of the partitions of feature sets, whether they exist or not."""
        return {name: address("partitions", self._partition_name(name), self._partition_recipe(name)) for name in names}

    def partition_settings(self) -> dict[str, Any]:
        """Recipe entries that determine how any feature set is scored and partitioned."""
        return {"mds": asdict(self.settings.mds), "partition": self.settings.partition.recipe()}

    def _partition_name(self, name: str) -> str:
        return f"{name}-{self.features(self.dataset.split).store.path.name}"

    def _partition_recipe(self, name: str, seed: int | None = None) -> dict[str, Any]:
        features = self.features(self.dataset.split)
        return {
            "features": features.recipe,
            "set": self.feature_set_recipe(name, seed),
            **self.partition_settings(),
        }

    @property
    def modalities(self) -> ModalityNames:
        """What the two sides of a pair are called."""
        return self.dataset.modality_names

    @property
    def named(self) -> str:
        """Model and dataset, for titles; the dataset alone if no model made it."""
        return f"{self.model.name} on {self.dataset_name}" if self.dataset.embedded else self.dataset_name

    @property
    def title(self) -> str:
        """Model, dataset and split, for titles of tables."""
        return self.title_of(self.dataset.split)

    def title_of(self, split: Split) -> str:
        """Model, dataset and the given split, for titles of tables."""
        return f"{self.named} ({self.described(split)})"

    def head(self, split: Split) -> str:
        """Model, dataset, split and numbers of pairs and groups, for titles of tables; needs the split's features."""
        count = counted(self.features(split).view.groups())
        return f"{self.named} ({self.described(split)}: {count})"

    def described(self, split: Split) -> str:
        """Name of a split; with `in-sample` if the model or a selected feature set was fitted to some of its pairs.

        The model was fitted on the training split by the source's own groups: by other groups, its pairs are in any split.
        """
        fits = [self.settings.training.split] if any(kind.made for kind in self.specs.values()) else []
        if self.model.fitted_on(self.dataset_name):
            fits += ["train", "select", "val"] if self.dataset.grouping.recipe() else ["train"]
        inside = split in fits or "all" in fits or (split == "all" and bool(fits))
        return f"{split}, in-sample" if inside else split

    def results(self, analysis: str, recipe: Mapping[str, Any], make: Callable[[Path], None]) -> Artifact:
        """Return the results of an analysis of the dataset's split, made unless they exist; see `Artifacts.build`."""
        name = f"{analysis}-{self.features(self.dataset.split).store.path.name}"
        return self.artifacts.build("results", name, recipe, make)


def _rebuilt_with(makes: str) -> tuple[str, ...]:
    """Kinds of artifacts that `+force=true` rebuilds: scores and classes belong to the results that show them."""
    return ("partitions", "sharedness", makes) if makes == "results" else (makes,)
