"""How much of the embeddings' information and function a feature set preserves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmmono.analyses.faithfulness import KS, Settings
from mmmono.core.errors import DictionaryError
from mmmono.dictionaries import ReconstructionMoments, SparsityMoments
from mmmono.dictionaries.metrics import Sparsity
from mmmono.features import MODALITIES, FeatureSet, Modality
from mmmono.features.retrieval import clip_loss, recall_at_k, zero_shot_accuracy
from mmmono.modality import modality_gap
from mmmono.pipeline.analysis import Study, Tables
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace import Workspace
from mmmono.pipeline.zero_shot import ClassPrompts, class_prompts, embeddings_of, labels_recipe, sample_of_pairs

Row = dict[str, object]


def prepare(workspace: Workspace) -> Study:
    """Measure reconstruction and sparsity; compare retrieval, zero-shot accuracy, gap and loss with the embeddings'."""
    settings = read_settings(workspace.cfg, "faithfulness", Settings)
    recipe = {
        "features": workspace.features(workspace.dataset.split).recipe,
        **labels_recipe(workspace),  # first, since what follows trains
        "sets": [workspace.feature_set_recipe(name) for name in workspace.specs],
        "faithfulness": asdict(settings),
        "seed": workspace.seed,
    }

    def compute(folder: Path) -> Tables:
        return _tables(workspace, settings)

    return Study(recipe, compute)


def _tables(workspace: Workspace, settings: Settings) -> Tables:
    rows = sample_of_pairs(workspace, settings.max_pairs)
    raw: dict[Modality, Tensor] = {m: embeddings_of(workspace, m, rows) for m in MODALITIES}
    groups = workspace.features(workspace.dataset.split).view.groups()[rows]
    classes = class_prompts(workspace, rows, settings.prompt)
    reconstruction: list[Row] = []
    of_embeddings = _function(raw, classes, groups, settings.temperature)
    function: list[Row] = [{"feature_set": "", "space": "embeddings", **of_embeddings}]
    for name in workspace.specs:
        features = workspace.feature_set(name)
        codes, decoded = _through(features, raw, workspace.device)
        reconstruction += _reconstruction(name, raw, codes, decoded)
        if not workspace.specs[name].made:
            continue
        coded_classes = decoded_classes = None
        if classes is not None:
            own_codes, own_decoded = _through(features, {"text": classes.embeddings}, workspace.device)
            coded_classes = ClassPrompts(own_codes["text"], classes.target)
            decoded_classes = ClassPrompts(own_decoded["text"], classes.target) if own_decoded else None
        after = _function(codes, coded_classes, groups, settings.temperature)
        function.append({"feature_set": name, "space": "features", **after})
        if decoded:
            after = _function(decoded, decoded_classes, groups, settings.temperature)
            function.append({"feature_set": name, "space": "reconstruction", **after})
    return {"reconstruction": reconstruction, "function": function}


def _through(
    features: FeatureSet, embeddings: dict[Modality, Tensor], device: str
) -> tuple[dict[Modality, Tensor], dict[Modality, Tensor]]:
    """Encode and decode embeddings; the reconstructions are empty if the feature set has no decoder."""
    codes: dict[Modality, Tensor] = {}
    decoded: dict[Modality, Tensor] = {}
    with torch.inference_mode():
        for modality, values in embeddings.items():
            encoded = [features.encode(block.to(device), modality) for block in values.split(4096)]
            codes[modality] = torch.cat(encoded).cpu()
            try:
                decoded[modality] = torch.cat([features.decode(block, modality) for block in encoded]).cpu()
            except DictionaryError:
                continue
    return codes, decoded


def _reconstruction(
    name: str, raw: dict[Modality, Tensor], codes: dict[Modality, Tensor], decoded: dict[Modality, Tensor]
) -> Iterator[Row]:
    for modality in MODALITIES:
        row: Row = {"feature_set": name, "samples": modality, "fvu": None, "cosine": None}
        sparsity: Sparsity
        if decoded:
            moments = ReconstructionMoments(raw[modality].shape[1], codes[modality].shape[1])
            moments.add(raw[modality], decoded[modality], codes[modality])
            sparsity = quality = moments.result()
            row |= {"fvu": quality.fvu, "cosine": quality.cosine}
        else:
            active = SparsityMoments(codes[modality].shape[1])
            active.add(codes[modality])
            sparsity = active.result()
        yield row | {"l0": sparsity.l0, "active": sparsity.active, "dead_share": sparsity.dead_fraction}


def _function(z: dict[Modality, Tensor], classes: ClassPrompts | None, groups: np.ndarray, temperature: float) -> Row:
    """Measure retrieval, zero-shot accuracy, modality gap and contrastive loss in one space."""
    image, text = (z[m] for m in MODALITIES)
    there, back = recall_at_k(image, text, KS, groups), recall_at_k(text, image, KS, groups)
    row: Row = {}
    row |= {f"i2t_r{k}": there[k] for k in KS} | {f"t2i_r{k}": back[k] for k in KS}
    accuracy = None
    if classes is not None:
        accuracy = zero_shot_accuracy(image, classes.embeddings, classes.target)
    # Samples without an active feature have no direction, so the gap leaves them out.
    alive = (image != 0).any(1) & (text != 0).any(1)
    return row | {
        "zero_shot": accuracy,
        "gap": modality_gap([(image[alive], text[alive])]).centroid_distance if bool(alive.any()) else None,
        "contrastive_loss": clip_loss(image, text, 1 / temperature),
    }
