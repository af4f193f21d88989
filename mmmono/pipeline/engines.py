"""Engine options (`engine=`): what extracts features and computes one-pass statistics, this process or a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mmmono.core.artifacts import Artifact
from mmmono.core.errors import ConfigError
from mmmono.features.cluster import ClusterSettings
from mmmono.features.cluster_folds import folded_on_cluster
from mmmono.features.folding import Advance, Folded, Threads, Walk, streams_of
from mmmono.pipeline.extracting import FeatureExtraction


@dataclass(frozen=True)
class Local:
    """`engine=local`: this process, with `extraction.workers` that read and decode.

    Attributes:
        workers: threads that compute statistics, see `Threads`.
    """

    workers: int | None = None

    def __post_init__(self) -> None:
        Threads(self.workers)

    def device_type(self, device: str) -> str:
        """Kind of device that encodes, given this process's device."""
        return device

    def streams(self, device: str) -> int:
        """Number of streams of ranges that this process holds at a time, at most."""
        return streams_of(Threads(self.workers).on(device))

    def extract(self, extraction: FeatureExtraction, limit: int | None) -> Artifact | None:
        """Return the store, made first if it does not exist; None if other processes still work on it."""
        return extraction.whole(limit) if extraction.devices == 1 else extraction.on_devices(limit)

    def folded_ranges(self, stream: Folded, walk: Walk, advance: Advance) -> Iterator[Folded]:
        """Yield a stream of each range of a walk, in order."""
        return Threads(self.workers).folded_ranges(stream, walk, advance)


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

    def streams(self, device: str) -> int:
        """Number of streams of ranges that this process holds at a time; of one worker, if their number is not given."""
        return streams_of(self.workers or 1)

    def device_type(self, device: str) -> str:
        """Kind of device that encodes, given this process's device."""
        return "cuda" if self.settings(device).gpus else "cpu"

    def extract(self, extraction: FeatureExtraction, limit: int | None) -> Artifact | None:
        """Return the store, made on the cluster first; None if other processes still work on it.

        Raises:
            ConfigError: `extraction.devices` is set as well.
        """
        if extraction.devices != 1:
            raise ConfigError(
                f"extraction.devices={extraction.devices} with engine=ray: engine.workers says how many work; leave one out"
            )
        return extraction.on_cluster(self.settings(extraction.device), limit)

    def folded_ranges(self, stream: Folded, walk: Walk, advance: Advance) -> Iterator[Folded]:
        """Yield a stream of each range of a walk, in order, from the workers of the cluster."""
        return folded_on_cluster(stream, walk, self.settings(walk.device), advance)


Engine = Local | Ray
