"""Make feature stores from a configuration: all of one in this process, or a share of one beside other processes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mmmono.core.artifacts import PARTIAL, Artifact, Artifacts, SharedWork
from mmmono.data import PairSource
from mmmono.data.images import DECODER_VERSION
from mmmono.features import extract_features
from mmmono.features.cluster import ClusterSettings
from mmmono.features.cluster_extraction import ClusterJob, extract_on_cluster, extract_on_devices
from mmmono.features.extraction import begin_store, extract_share
from mmmono.features.extraction_settings import ExtractionSettings
from mmmono.features.reading import Encoder
from mmmono.features.shares import Share
from mmmono.features.store import Manifest
from mmmono.features.writer import FeatureStoreWriter
from mmmono.pipeline.devices import FIRST_GPU, several_devices
from mmmono.pipeline.losses import tell_copies, tell_left, tell_losses, tell_repeats
from mmmono.pipeline.models import Model


@dataclass(frozen=True)
class FeatureExtraction:
    """The extraction of one source's features by a model.

    Attributes:
        artifacts: where the store is kept.
        model: encodes the pairs.
        source: the pairs.
        name: prefix of the store's folder.
        device: where the encoders run.
        settings: settings of reading and encoding.
        devices: how many devices encode, each with a process of its own; −1 for all GPUs.
    """

    artifacts: Artifacts
    model: Model
    source: PairSource
    name: str
    device: str
    settings: ExtractionSettings
    devices: int = 1

    def recipe(self, limit: int | None) -> dict[str, Any]:
        """Everything that determines the store's content; `limit` is the number of pairs to take, None for all."""
        resize = {} if self.settings.resize == "pillow" else {"resize": self.settings.resize}
        return {
            "model": self.model.identity,
            "dataset": self.source.fingerprint(),
            "decoder": DECODER_VERSION,
            "limit": limit,
            "dtype": self.settings.dtype,
            "precision": self.settings.precision,
            **resize,
        }

    def others_unfinished(self, limit: int | None) -> list[Path]:
        """Return folders of unfinished stores of the same model and dataset with other settings, by name."""
        own = self.artifacts.path("features", self.name, self.recipe(limit))
        named = re.compile(rf"{re.escape(own.name.rpartition('-')[0])}-[0-9a-f]+{re.escape(PARTIAL)}")
        begun = (folder for folder in own.parent.glob(f"*{PARTIAL}") if named.fullmatch(folder.name))
        return sorted(folder for folder in begun if folder.name != own.name + PARTIAL)

    def whole(self, limit: int | None) -> Artifact:
        """Return the store, made first if it does not exist, in this process."""
        self.source.watch()  # fails early
        return self.artifacts.build("features", self.name, self.recipe(limit), self._make, resumable=True)

    def share(self, share: Share, limit: int | None) -> Artifact | None:
        """Do a share of the store; return the store if that completed it, None if other shares are not done.

        Raises:
            ConfigError: the dataset has a limit, or the features are to be rebuilt.
        """

        def work(directory: Path) -> bool:
            parts = self.source.parts()
            writer = FeatureStoreWriter(directory, len(parts), self.settings.dtype, begin=False)
            if not share.parts(len(parts)):  # fewer parts than shares
                done = writer.all_done()
            else:
                encoder = self.model.load_checked(self.artifacts, self.device)
                done = extract_share(self.source, encoder, directory, share, device=self.device, settings=self.settings)
            if not done and directory.exists():  # if it is gone, another process has finished the store meanwhile
                tell_left([parts[part] for part in writer.left()], len(parts))
            return done

        return self._together(work, limit)

    def on_cluster(self, cluster: ClusterSettings, limit: int | None) -> Artifact | None:
        """Return the store, made by the workers of a cluster first; None if other processes still work on it.

        Raises:
            ConfigError: there is no such cluster, the dataset has a limit, or the features are to be rebuilt.
        """

        def work(directory: Path) -> bool:
            device = FIRST_GPU if cluster.gpus else "cpu"  # of those that Ray shows a worker
            load = partial(_load, self.model, self.artifacts.root.resolve(), device)
            return extract_on_cluster(
                ClusterJob(self.source, load, directory.resolve(), device, self.settings), cluster
            )

        return self._together(work, limit)

    def on_devices(self, limit: int | None) -> Artifact | None:
        """Return the store, made by a process for each device first; None if other processes still work on it.

        Raises:
            ConfigError: there are no such devices, the dataset has a limit, or the features are to be rebuilt.
        """

        def work(directory: Path) -> bool:
            devices = several_devices(self.device, self.devices)  # features that are there need none
            load = partial(_load, self.model, self.artifacts.root.resolve())
            job = ClusterJob(self.source, partial(load, "cpu"), directory.resolve(), "cpu", self.settings)
            return extract_on_devices(job, load, devices)

        return self._together(work, limit)

    def _together(self, work: Callable[[Path], bool], limit: int | None) -> Artifact | None:
        def begin(directory: Path) -> None:
            tell_repeats(self.source)
            begin_store(self.source, directory, self.settings)

        self.source.watch()
        job = SharedWork(begin, work, self._complete)
        return self.artifacts.build_together("features", self.name, self.recipe(limit), job)

    def _make(self, directory: Path) -> None:
        tell_repeats(self.source)
        self._report(self.model.extract(self.source, self.artifacts, directory, self.device, self.settings))

    def _complete(self, directory: Path) -> None:
        """Encode what the processes that shared the work have left, and finish the store."""
        encoder = self.model.load_checked(self.artifacts, self.device)
        self._report(extract_features(self.source, encoder, directory, device=self.device, settings=self.settings))

    def _report(self, manifest: Manifest) -> None:
        """Say what was lost and copied."""
        tell_losses(manifest)
        if (cache := self.source.copies) is not None:
            tell_copies(cache)


def _load(model: Model, root: Path, device: str) -> Encoder:
    """Load a model in a worker process."""
    return model.load_checked(Artifacts(root), device)
