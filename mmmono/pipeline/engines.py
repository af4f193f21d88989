"""Engine options (`engine=`): what extracts features, this process or a cluster."""

from __future__ import annotations

from dataclasses import dataclass

from mmmono.core.artifacts import Artifact
from mmmono.features.cluster import ClusterSettings
from mmmono.pipeline.extracting import FeatureExtraction


@dataclass(frozen=True)
class Local:
    """`engine=local`: this process, with `extraction.workers` that read and decode."""

    def device_type(self, device: str) -> str:
        """Kind of device that encodes, given this process's device."""
        return device

    def extract(self, extraction: FeatureExtraction, limit: int | None) -> Artifact | None:
        """Return the store, made first if it does not exist."""
        return extraction.whole(limit)


@dataclass(frozen=True)
class Ray:
    """`engine=ray`: the workers of a Ray cluster; see `ClusterSettings`. `gpus` null: one each if this process has one."""

    address: str = "auto"
    workers: int | None = None
    cpus: int | None = None
    gpus: int | None = None

    def __post_init__(self) -> None:
        self.settings("cpu")

    def settings(self, device: str) -> ClusterSettings:
        """Where the workers run, given this process's device. Raises ConfigError if a setting is invalid."""
        gpus = int(device.startswith("cuda")) if self.gpus is None else self.gpus
        return ClusterSettings(self.address, self.workers, self.cpus, gpus)

    def device_type(self, device: str) -> str:
        """Kind of device that encodes, given this process's device."""
        return "cuda" if self.settings(device).gpus else "cpu"

    def extract(self, extraction: FeatureExtraction, limit: int | None) -> Artifact | None:
        """Return the store, made on the cluster first; None if other processes still work on it."""
        return extraction.on_cluster(self.settings(extraction.device), limit)


Engine = Local | Ray
