"""A small store of pairs for tests of objectives over seeds, and what numpy finds on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mmmono.features import FeatureStore
from mmmono.features.selection import split_view
from mmmono.features.synthetic import SyntheticParameters, synthesize
from tests.pipeline.test_entrypoints import only

FEW = (
    "features.k=3", "features.expansion=2", "trainer=cpu", "trainer.max_steps=60", "trainer.min_steps=60",
    "trainer.val_check_interval=30", "training.snapshot_every=null", "mds.min_pairs=3", "model.name=mine",
)  # fmt: skip
OWN = ("features=[raw,sae,infonce]", "objectives.n_seeds=1", "objectives.n_random=3", "objectives.n_chance=2")
SAE = ("features=sae", "sae.center=per_modality", "partition=margin")  # as objectives has it


def store(folder: Path, pairs: int = 700) -> tuple[str, ...]:
    """Two files of embeddings, and the settings that take them."""
    made = synthesize(SyntheticParameters(pairs=pairs, dim=16, image_atoms=6, text_atoms=6, shared_atoms=6, active=3))
    np.save(folder / "image.npy", made.image.numpy())
    np.save(folder / "text.npy", made.text.numpy())
    return (
        "dataset=store", f"dataset.image={folder / 'image.npy'}", f"dataset.text={folder / 'text.npy'}",
        f"artifacts={folder / 'artifacts'}", *FEW,
    )  # fmt: skip


def root_of(given: tuple[str, ...]) -> Path:
    return Path(next(setting for setting in given if setting.startswith("artifacts=")).partition("=")[2])


def recall(image: np.ndarray, text: np.ndarray) -> float:
    """R@1, mean of both ways."""
    unit = [
        side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12) for side in map(np.float64, (image, text))
    ]
    hits = []
    for cosines in (unit[0] @ unit[1].T, unit[1] @ unit[0].T):
        excess = cosines - cosines.diagonal()[:, None]
        hits.append(((excess > 1e-9).sum(1) == 0) / (np.abs(excess) <= 1e-9).sum(1))  # of n that tie, one is drawn
    return float(np.mean(hits))


def held_out(root: Path) -> list[torch.Tensor]:
    view = split_view(FeatureStore(only(root / "features", "mine-*")), "val")
    return [torch.nn.functional.normalize(view.read(m, 0, len(view)).float(), dim=1) for m in ("image", "text")]  # type: ignore[arg-type]


def halves(groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the groups that classes are chosen on, and of those that they are removed on."""
    first = np.random.default_rng(0).permutation(groups) < groups // 2
    return first, ~first


def classified(image: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """R(d), and masks of the classes, of which none has a dead latent; each pair is a group."""
    ratio = image / (image + text)
    scores, live = ratio.nanmean(0), (~ratio.isnan()).sum(0) >= 3
    classes = {"ImgD": live & (scores > 0.8), "TextD": live & (scores < 0.2)}
    return scores, {**classes, "CrossD": live & ~classes["ImgD"] & ~classes["TextD"]}
