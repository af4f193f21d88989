"""Features that nothing extracted, at the addresses where an entrypoint would have put its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from mmmono.core.artifacts import RECIPE_FILE, Artifact, Artifacts
from mmmono.core.errors import MissingArtifactError
from mmmono.core.versions import versioned
from mmmono.features.store import Manifest
from mmmono.features.writer import FeatureStoreWriter
from mmmono.pipeline.workspace import Workspace


class Reached(Exception):
    """An analysis knows where its results lie."""


class Addresses(Artifacts):
    """Remembers where everything would lie that is asked for, and makes none of it."""

    builds = False

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        self.asked: list[str] = []
        self.recipe: dict[str, Any] = {}

    def build(
        self,
        kind: str,
        name: str,
        recipe: Mapping[str, Any],
        make: Callable[[Path], None],
        resumable: bool = False,
        **_: Any,
    ) -> Artifact:
        path = self.path(kind, name, recipe)
        self.asked.append(f"{kind}/{path.name}")
        self.recipe = versioned(kind, name, recipe)
        if kind == "results":
            raise Reached
        if kind == "features" and not path.exists():
            raise MissingArtifactError(f"{path} is not there")
        if kind == "groups" and not path.exists():  # what follows reads them
            path.mkdir(parents=True)
            make(path)
        return Artifact(path, self.recipe, built=False)


def put_random_features(cfg: DictConfig, rows: Sequence[dict[str, str]], dim: int, skipped: int = 0) -> Workspace:
    """Write stores for the splits that a configuration trains on and evaluates; a workspace that makes nothing more.

    Args:
        cfg: of an entrypoint.
        rows: metadata of the pairs.
        dim: width of the embeddings.
        skipped: pairs that the manifest says were broken.
    """
    torch.manual_seed(0)
    while True:
        artifacts = Addresses(cfg.artifacts)
        workspace = Workspace(cfg, makes="none", artifacts=artifacts)
        try:
            for split in dict.fromkeys((cfg.get("training", {}).get("split"), workspace.dataset.split)):
                if split is not None:
                    workspace.features(split)
            return workspace
        except MissingArtifactError:
            folder = artifacts.root / artifacts.asked[-1]
            writer = FeatureStoreWriter(folder, 1)
            source = workspace.dataset.source(workspace.dataset.split)
            image, text = torch.randn(len(rows), dim), torch.randn(len(rows), dim)
            writer.write(0, image, text, rows, [(f"lost/{i}", "no image") for i in range(skipped)])
            writer.finish(Manifest(workspace.model.name, "", source.name, "", dim, len(rows), "float16", ""), [0])
            (folder / RECIPE_FILE).write_text(json.dumps(artifacts.recipe, default=str))
