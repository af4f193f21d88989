"""The model that everybody sees first: DrawingCLIP as entrypoints fit it, before other tests would wait for it."""

import json
from pathlib import Path

import torch
from torch.nn import functional as F

from mmmono.core.artifacts import Artifacts
from mmmono.data import SplitShares
from mmmono.features import FeatureStore, split_view


def recall_at_10(query: torch.Tensor, target: torch.Tensor) -> float:
    """Share of queries whose own target is among the ten nearest."""
    nearest = (F.normalize(query) @ F.normalize(target).T).topk(10).indices
    return (nearest == torch.arange(len(query))[:, None]).any(dim=1).double().mean().item()


def test_it_finds_unseen_drawings_by_their_names(artifacts: Path) -> None:
    store = FeatureStore(next(Artifacts(artifacts).find("features")).path)
    view = split_view(store, "val", SplitShares(0, 0.7, 0.1))
    image, text = (view.read(side, 0, len(view)).float() for side in ("image", "text"))
    assert len(image) > 50
    assert recall_at_10(text, image) > 0.4
    assert recall_at_10(text, image[torch.randperm(len(image), generator=torch.Generator().manual_seed(0))]) < 0.3
    report = json.loads(next((artifacts / "models").glob("*/fit.json")).read_text())
    assert report["pairs"] > 7000
    assert report["groups"] < report["pairs"]
