"""One step of a plan: the features, dictionaries, downloads and results that its entrypoint needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from mmmono.commands.plan.downloads import Hub, embedder_weights, named_weights
from mmmono.commands.plan.rates import Rates, hours, readable
from mmmono.core.artifacts import Artifact, FinishedArtifacts
from mmmono.core.errors import MissingArtifactError, MmmonoError
from mmmono.features import FeatureStore
from mmmono.features.selection import Split
from mmmono.pipeline.analysis import Analysis
from mmmono.pipeline.downloads import Download
from mmmono.pipeline.specs import FeatureSetSpec, Trained
from mmmono.pipeline.training import check_trainer
from mmmono.pipeline.workspace import Workspace

TYPE_BYTES = {"float16": 2, "float32": 4}


class State(StrEnum):
    """State of an item in the plan."""

    FOUND = "found"
    TO_MAKE = "to make"
    TO_FETCH = "to download"
    FAILS = "will fail"


@dataclass(frozen=True)
class Item:
    """Something a step needs or makes.

    Attributes:
        section: section of the paper.
        what: description.
        model: model and dataset that it belongs to.
        state: whether it exists, has to be made or downloaded, or will fail.
        writes: bytes on disk, now or once it is made; None if unknown.
        download: bytes to download; None if unknown or nothing.
        kept: whether the download stays on disk.
        seconds: estimated time to make it, from measurements on this machine; None if unknown.
        address: path of its artifact, or repository with files.
        why: reason for failing.
    """

    section: str
    what: str
    model: str
    state: State
    writes: int | None = None
    download: int | None = None
    kept: bool = False
    seconds: float | None = None
    address: str = ""
    why: str = ""

    @property
    def identity(self) -> tuple[str, str]:
        """Key that is equal for items shared by several steps: the address, else description and model."""
        return (self.address, "") if self.address else (self.what, self.model)

    def to_row(self) -> dict[str, object]:
        """Row of the plan's table."""
        making = self.state == State.TO_MAKE
        return {
            "section": self.section, "what": self.what, "state": str(self.state), "model": self.model,
            "download": readable(self.download), "on disk": readable(self.writes),
            "time": hours(self.seconds) if making else "",
        }  # fmt: skip


class Step:
    """Inspect one step without computing anything.

    Args:
        analysis: the analysis.
        cfg: the composed configuration of its entrypoint.
        hub: the model hub, to look up downloads.

    Raises:
        ConfigError: a setting is invalid.
    """

    def __init__(self, analysis: Analysis, cfg: DictConfig, hub: Hub) -> None:
        self.analysis, self.hub = analysis, hub
        self.lookup = Lookup(cfg.artifacts)
        self.workspace = Workspace(cfg, makes="none", artifacts=self.lookup)
        self.model = self.workspace.named
        self.rates = Rates(self.lookup)

    def items(self) -> Iterator[Item]:
        """Yield the step's items in order: features, dictionaries, then results, each after its downloads."""
        if not self.analysis.of_features:
            yield self._result("")
            return
        failed = missing = ""
        for split in self._splits():
            for item in self._features(split):
                failed = failed or (item.why if item.state == State.FAILS and not self._only_unreachable(item) else "")
                missing = missing or (item.what if item.state == State.TO_MAKE else "")
                yield item
        for name, spec in self.workspace.specs.items():
            if spec.made:
                for seed in self._seeds(spec):
                    item = self._dictionary(name, spec, failed, look=not missing and not failed, seed=seed)
                    failed = failed or item.why
                    yield item
        if self.analysis.kind == "results":
            result = self._result(failed)
            if result.state == State.TO_MAKE:
                for what, analysis, run in self.analysis.parts(self.workspace):
                    seconds = self.rates.analysis(analysis.name, self._expected_pairs(run.dataset.split))
                    yield self._item(what, State.TO_MAKE, seconds=seconds)
                for download in self._downloads_of_analysis():
                    item = self._download(download)
                    yield item
                    if item.state == State.FAILS and not self._only_unreachable(item):
                        result = self._item(result.what, State.FAILS, why=item.why)
            yield result

    def _seeds(self, spec: FeatureSetSpec) -> list[int]:
        """Seeds of the dictionaries of a feature set that the analysis needs, that of the run first."""
        first, setting = self.workspace.seed, self.analysis.more_seeds
        more = OmegaConf.select(self.workspace.cfg, setting) if setting and spec.trained else 0
        return [first + i for i in range(more + 1)]

    def _item(self, what: str, state: State, **more: Any) -> Item:
        return Item(self.analysis.section, what, self.model, state, **more)

    def _only_unreachable(self, item: Item) -> bool:
        """Whether the only reason for failing is that the hub does not answer now."""
        return item.why == UNREACHABLE

    def _splits(self) -> list[Split]:
        """Splits whose features the step needs, one for each store."""
        cfg, dataset = self.workspace.cfg, self.workspace.dataset
        splits: list[Split] = [dataset.split]
        made = any(kind.made for kind in self.workspace.specs.values())
        option: Any = get_class(cfg.generator._target_) if "generator" in cfg else None
        if made or (option is not None and option.trained_here):
            splits.insert(0, self.workspace.settings.training.split)
        if made:
            splits.append(self.workspace.validation_split)
        splits.append(self.analysis.split(self.workspace))
        return list(dict.fromkeys(dataset.source_split(split) for split in splits))

    def _features(self, split: Split) -> Iterator[Item]:
        workspace, dataset = self.workspace, self.workspace.dataset
        what = "features" + (f", {split} split" if dataset.native_splits else "")
        try:
            store = workspace.features(split).store
        except MissingArtifactError:
            yield from self._features_to_make(what, split)
        except MmmonoError as error:
            yield from self._features_to_make(what, split, str(error))
        else:
            held = FeatureStore(store.path)
            what = f"{what}: {len(held)} pairs × {held.dim}"
            yield self._item(what, State.FOUND, writes=folder_size(store.path), address=str(store.path))

    def _features_to_make(self, what: str, split: Split, why: str = "") -> Iterator[Item]:
        workspace = self.workspace
        for download in (*workspace.dataset.downloads(split), *workspace.model.downloads()):
            item = self._download(download)
            yield item
            if item.state == State.FAILS and not self._only_unreachable(item):
                why = why or item.why
        pairs, dim = self._expected_pairs(split), self._dim()
        what = f"{what}: {'unknown' if pairs is None else pairs} pairs × {dim or 'unknown'}"
        number = TYPE_BYTES.get(workspace.settings.extraction.dtype, 4)
        yield self._item(
            what,
            State.FAILS if why else State.TO_MAKE,
            writes=None if pairs is None or dim is None else 2 * pairs * dim * number,
            seconds=self.rates.extraction(workspace.model.name, pairs),
            address="" if why else self.lookup.asked,
            why=why,
        )

    def _expected_pairs(self, split: Split) -> int | None:
        try:
            return self.workspace.dataset.expected_pairs(split)
        except MmmonoError:
            return None

    def _dim(self) -> int | None:
        """Width of the embeddings; None if it is unknown before extraction."""
        return self.workspace.dataset.dim_of(self.workspace.model.dim)

    def _dictionary(self, name: str, spec: FeatureSetSpec, failed: str, look: bool, seed: int) -> Item:
        of = "" if seed == self.workspace.seed else f", seed {seed}"
        what = f"dictionary {name}{of}" if spec.trained else f"control {name}"
        address = ""
        if look:
            try:
                found = self.workspace.dictionary(name, seed)
                return self._item(what, State.FOUND, writes=folder_size(found.path), address=str(found.path))
            except MissingArtifactError:
                address = self.lookup.asked
            except MmmonoError as error:
                failed = str(error)
        cfg, dim = self.workspace.cfg, self._dim()
        if not failed:
            try:
                spec.check(lambda: dim, self.workspace.settings.features.normalize, download=False)
                if spec.trained:
                    check_trainer(cfg).here()
            except MmmonoError as error:
                failed = str(error)
        state = State.FAILS if failed else State.TO_MAKE
        if dim is None or not isinstance(spec, Trained):
            return self._item(what, state, address=address, why=failed)
        settings = spec.settings
        width = round(dim * settings["expansion"])
        steps, every = cfg.trainer.get("max_steps") or -1, self.workspace.settings.training.snapshot_every
        copies = 4 + (
            max(0, steps) // every + 1 if every else 0
        )  # weights, a checkpoint with Adam's two moments, snapshots
        active = f", {settings['k']} active" if "k" in settings else ""
        return self._item(
            f"{what}: {width} features{active}",
            state,
            writes=2 * dim * width * 4 * copies,
            seconds=self.rates.training(name, steps, 2 * dim * width) if steps > 0 else None,
            address=address,
            why=failed,
        )

    def _result(self, failed: str) -> Item:
        what = f"results of {self.analysis.name}"
        try:
            found = self.analysis.find(self.workspace)
        except MissingArtifactError:
            found = None
        except MmmonoError as error:
            return self._item(what, State.FAILS, why=str(error))
        if found is not None:
            return self._item(what, State.FOUND, writes=folder_size(found.path), address=str(found.path))
        pairs = self._expected_pairs(self.workspace.dataset.split)
        seconds = self.rates.analysis(self.analysis.name, pairs)
        return self._item(what, State.FAILS if failed else State.TO_MAKE, seconds=seconds, why=failed)

    def _downloads_of_analysis(self) -> Iterator[Download]:
        cfg, workspace = self.workspace.cfg, self.workspace
        if self.analysis.embeds_anew or (self.analysis.embeds_labels and workspace.dataset.label is not None):
            yield from workspace.model.downloads()
        yield from embedder_weights(cfg)
        for setting, what in self.analysis.weights.items():
            yield from named_weights(what, OmegaConf.select(cfg, setting))

    def _download(self, download: Download) -> Item:
        there = self.hub.look(download)
        # A download that is not kept is streamed again for every model.
        of = "" if download.kept else self.model
        more = {"kept": download.kept, "address": f"hub: {download.repository} {download.files} {download.share} {of}"}
        if there.found:
            return self._item(download.what, State.FOUND, **more)
        if there.why:
            return self._item(download.what, State.FAILS, why=there.why, **more)
        if not self.hub.reachable:
            return self._item(download.what, State.FAILS, download=there.size, why=UNREACHABLE, **more)
        return self._item(download.what, State.TO_FETCH, download=there.size, **more)


UNREACHABLE = "the hub does not answer, and it is not in the cache"


class Lookup(FinishedArtifacts):
    """Artifacts that are looked up but never built.

    Attributes:
        asked: path of the last requested artifact.
    """

    asked = ""

    def build(
        self, kind: str, name: str, recipe: Mapping[str, Any], make: Callable[[Path], None], resumable: bool = False
    ) -> Artifact:
        """Return the artifact. Raises MissingArtifactError if it does not exist."""
        self.asked = str(self.path(kind, name, recipe))
        return super().build(kind, name, recipe, make, resumable)


def folder_size(folder: Path) -> int:
    """Total size in bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
