"""Features made up for tests of the explorer's page, and the page written of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmmono.commands.explorer.likeness import Counterparts, Likeness
from mmmono.commands.explorer.page import ExploredFeatures, ExplorerWriter, FoundAgain, Named
from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames
from mmmono.interpretability import (
    Neighbors,
    activation_histograms,
    centered_activations,
    co_firing,
    counterparts,
    feature_map,
    nearest_features,
    top_samples,
)
from mmmono.modality import dominance_scores, partition_by_sigma, sharedness_scores, sign_flip_p_values
from mmmono.modality.report import FeatureSetDominance

ANIMALS = ("dog", "cat", "hotdog", "horse", "Émeu", "catfish (raw)")
COLORS = ("red", "green", "blue", "a <b>bold</b>")
PAIRS, FEATURES = 120, 70
RARE = 5  # pairs that activate the feature before the last, the rare one
MADE = {"seed": 0, "mono": "offline", "named": "words, paper (not independent)", "attribution": ""}
CAPTIONS = [f"{COLORS[i % 4]} {ANIMALS[i % 6]} number {i}" for i in range(PAIRS)]


def sides(features: int, pairs: int, seed: int) -> tuple[Tensor, Tensor]:
    """Sparse activations on images and texts, of features of either modality; one is rare, the last one is silent."""
    rng = np.random.default_rng(seed)
    lean = rng.uniform(0.2, 1.8, size=features)
    found = []
    for side in (lean, 2 - lean):
        a = rng.gamma(2, size=(pairs, features)) * side * (rng.random((pairs, features)) < 0.3)
        a[RARE:, -2] = 0
        a[:RARE, -2] = 1.5
        a[:, -1] = 0
        found.append(torch.from_numpy(a.astype(np.float32)))
    found[1][:, ::2] = found[1][:, ::2].where(found[0][:, ::2] == 0, 1.0)  # what every second feature says is shared
    found[1][:, -1] = 0
    found[1][RARE:, -2] = 0
    return found[0], found[1]


def likeness(image: Tensor, text: Tensor) -> Likeness:
    directions = centered_activations(image, text)
    return Likeness(
        neighbors=nearest_features(directions, 4),
        alike_by="correlation of activations",
        together=co_firing(image > 0, text > 0, 3),
        places=feature_map(directions, "pca"),
        counterparts={},
        pairs=len(image),
    )


def random_likeness(image: Tensor, text: Tensor) -> Likeness:
    """In place of the true one, which takes long for thousands of features."""
    generator = torch.Generator().manual_seed(0)
    features = image.shape[1]
    found = Neighbors(torch.randint(features, (features, 4), generator=generator), torch.full((features, 4), 0.5))
    return Likeness(found, "nothing", found, torch.rand(features, 2, generator=generator), {}, len(image))


def explored(
    name: str, features: int, pairs: int = PAIRS, seed: int = 0, mono: bool = True, alike: bool = True
) -> ExploredFeatures:
    """What the page shows of made-up features.

    Args:
        name: name of the feature set.
        features, pairs: numbers of them.
        seed: seed of all that is made up.
        mono: with the results of other analyses.
        alike: with what is truly alike, or with something in its place that takes no time.
    """
    image, text = sides(features, pairs, seed)
    scores = dominance_scores([(image, text)])
    live = scores.informative_pairs >= 10
    p, q = sign_flip_p_values(scores, live)
    found = sharedness_scores([(image, text)])
    energy = image.double().square().sum(0) + text.double().square().sum(0)
    rng = np.random.default_rng(seed)
    return ExploredFeatures(
        dominance=FeatureSetDominance(name, scores, partition_by_sigma(scores.scores, live=live)),
        min_pairs=10,
        p_value=p,
        q_value=q,
        energy=energy / energy.sum(),
        top={"image": top_samples([image], 6), "text": top_samples([text], 5)},
        histograms=activation_histograms([(image, text)]),
        active=torch.stack([(side > 0).double().mean(0) for side in (image, text)]),
        likeness=(likeness if alike else random_likeness)(image, text),
        mono={m: torch.from_numpy(rng.normal(size=features)) for m in ("image", "text")} if mono else None,
        consensus=found_again(features) if mono else None,
        sharedness=(found.score, found.q_value(live)) if mono else None,
        named=named(features) if mono else None,
        probability=probability(features) if mono else None,
    )


def compared(one: ExploredFeatures, other: ExploredFeatures, seeds: tuple[int, int]) -> list[ExploredFeatures]:
    """Both feature sets, with the counterparts of each in the other; `seeds`: those that they were made with."""
    each = [one, other]
    directions = [
        centered_activations(*sides(len(of.dominance.partition), PAIRS, seed))
        for of, seed in zip(each, seeds, strict=True)
    ]
    for mine, theirs in ((0, 1), (1, 0)):
        found = counterparts(directions[mine], directions[theirs])
        there = {each[theirs].name: Counterparts(found.features[:, 0], found.cosines[:, 0], 0.25)}
        each[mine] = replace(each[mine], likeness=replace(each[mine].likeness, counterparts=there))
    return each


def named(features: int) -> Named:
    auroc = torch.linspace(0.4, 1, features, dtype=torch.float64)
    return Named([f"word {i}" if i % 2 else "" for i in range(features)], {"image": auroc, "text": 1 - auroc})


def found_again(features: int) -> FoundAgain:
    match = torch.linspace(-0.1, 1, features, dtype=torch.float64)
    return FoundAgain(match, match > 0.7)


def probability(features: int) -> dict[str, Tensor]:
    share = torch.linspace(0, 1, features, dtype=torch.float64)
    return {"ImgD": share, "TextD": (1 - share) / 4, "CrossD": 3 * (1 - share) / 4}


def thumbnail(row: int) -> Image.Image:
    return Image.new("RGB", (60, 40), (row * 37 % 256, row * 91 % 256, 120))


def write(
    directory: Path,
    sets: list[ExploredFeatures],
    captions: list[str] = CAPTIONS,
    modalities: ModalityNames = IMAGE_AND_TEXT,
) -> Path:
    writer = ExplorerWriter(directory, captions, True, modalities)
    for one in sets:
        writer.add(one)
        for row in writer.rows(one):
            writer.write_thumbnail(row, thumbnail(row))
        assert writer.rows(one) == []
    return writer.finish("model <x> on data", {**MADE, "pairs": len(captions)})
