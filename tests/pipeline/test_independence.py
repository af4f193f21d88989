"""Whether an embedder is an independent judge of the model that made the pairs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mmmono.interpretability.embedders import offline_embedder
from mmmono.pipeline.independence import shared_towers
from mmmono.pipeline.models import DrawingCLIP, OpenCLIP, Unnamed

BOTH = {"image", "text"}


def workspace(model: Any, dataset: str) -> Any:
    given = object() if dataset in ("store", "synthetic") else None
    of = SimpleNamespace(feature_store=lambda artifacts, name: given)
    return SimpleNamespace(model=model, dataset_name=dataset, dataset=of, artifacts=None)


@pytest.mark.parametrize(
    ("name", "dataset", "shared"),
    [
        ("drawingclip", "openmoji", BOTH), ("mine", "openmoji", BOTH),  # under any name it is the same model
        ("drawingclip", "store", BOTH), ("mine", "store", BOTH),
        ("drawingclip", "synthetic", set()),
    ],
)  # fmt: skip
def test_drawingclip_shares_both_towers_where_it_made_the_pairs(name: str, dataset: str, shared: set[str]) -> None:
    assert shared_towers(workspace(DrawingCLIP(name=name), dataset), offline_embedder()) == shared


@pytest.mark.parametrize(("name", "shared"), [("drawingclip", BOTH), ("mine", set())])
def test_of_a_store_the_name_of_its_maker_is_enough(name: str, shared: set[str]) -> None:
    assert shared_towers(workspace(Unnamed(name=name), "store"), offline_embedder()) == shared


def test_other_models_share_none() -> None:
    model = OpenCLIP(name="ViT-B-32", architecture="ViT-B-32", pretrained="openai")
    assert shared_towers(workspace(model, "openmoji"), offline_embedder()) == set()
