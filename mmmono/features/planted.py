"""Synthetic paired embeddings with ground truth: image-only, text-only and shared concepts of a known dictionary."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmmono.core.errors import ConfigError
from mmmono.features.store import Manifest
from mmmono.features.writer import FeatureStoreWriter

TRUTH_FILE = "truth.safetensors"
ANSWERS = ("atoms", "kind", "gain", "image_codes", "text_codes")
KINDS = ("image", "text", "shared")
SHARD = 16_384


@dataclass(frozen=True)
class PlantedParameters:
    """Parameters of the synthetic pairs.

    Lengths are relative to the root mean square norm of the embeddings without offset and noise.

    Attributes:
        pairs: number of pairs.
        dim: width of the embeddings.
        image_atoms, text_atoms, shared_atoms: number of concepts that occur only in images, only in texts, or in both.
            If there are more than `dim`, they are in superposition.
        active: mean number of concepts per sample.
        zipf: exponent of the concept frequencies within a kind; 0 makes them equal.
        correlation: probability that a shared concept is present or absent in both sides of a pair together, instead of
            independently.
        gain_spread: standard deviation of log(gain in images / gain in texts) of shared concepts.
        gap: distance between the means of the two modalities caused by the offset, as a relative length.
        noise: root mean square norm of the noise, as a relative length.
        seed: of all random numbers.

    Raises:
        ConfigError: a parameter is invalid.
    """

    pairs: int = 20_000
    dim: int = 64
    image_atoms: int = 32
    text_atoms: int = 32
    shared_atoms: int = 32
    active: float = 6.0
    zipf: float = 0.5
    correlation: float = 0.8
    gain_spread: float = 0.5
    gap: float = 0.3
    noise: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("pairs", "dim", "image_atoms", "text_atoms", "shared_atoms"):
            if getattr(self, name) < 1:
                raise ConfigError(f"dataset.{name}={getattr(self, name)}: planted pairs need at least one")
        if not 0 <= self.correlation <= 1:
            raise ConfigError(f"dataset.correlation={self.correlation} is a probability: give 0 to 1")
        for name in ("zipf", "gain_spread", "gap", "noise"):
            if getattr(self, name) < 0:
                raise ConfigError(f"dataset.{name}={getattr(self, name)} must not be negative")
        atoms = min(self.image_atoms, self.text_atoms) + self.shared_atoms
        if not 0 < self.active <= atoms:
            raise ConfigError(
                f"dataset.active={self.active} concepts a sample, but a modality has only {atoms} atoms: give more atoms"
            )
        if (highest := float(max(_frequencies(self)[kind].max() for kind in KINDS))) > 1:
            raise ConfigError(
                f"dataset.active={self.active} and dataset.zipf={self.zipf} want the commonest concept in {highest:.2f} of "
                "all samples, a probability above 1: lower either, or plant more atoms"
            )


@dataclass(frozen=True)
class PlantedPairs:
    """Synthetic embeddings with their ground truth.

    Attributes:
        image, text: embeddings.
        atoms: unit directions of the concepts: image-only first, then text-only, then shared.
        kind: index into KINDS, for each atom.
        gain: strength of a concept in images over its strength in texts, when present; infinite for image-only
            concepts, 0 for text-only ones.
        image_codes, text_codes: strength of each concept in each sample; 0 if absent.
    """

    image: Float[Tensor, "pairs dim"]
    text: Float[Tensor, "pairs dim"]
    atoms: Float[Tensor, "atoms dim"]
    kind: Int64[Tensor, " atoms"]
    gain: Float[Tensor, " atoms"]
    image_codes: Float[Tensor, "pairs atoms"]
    text_codes: Float[Tensor, "pairs atoms"]


def plant(parameters: PlantedParameters) -> PlantedPairs:
    """Draw concepts, codes and embeddings: z = codes · atoms ± offset + noise, with + for images and − for texts."""
    rng = np.random.default_rng(parameters.seed)
    counts = (parameters.image_atoms, parameters.text_atoms, parameters.shared_atoms)
    kind = np.repeat(np.arange(3), counts)
    atoms = rng.standard_normal((len(kind), parameters.dim))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    frequency = np.concatenate([_frequencies(parameters)[name] for name in KINDS])
    gain = np.exp(np.where(kind == 2, rng.standard_normal(len(kind)) * parameters.gain_spread / 2, 0))
    joint = rng.random((parameters.pairs, len(kind))) < frequency
    together = rng.random((parameters.pairs, len(kind))) < parameters.correlation
    codes = []
    for absent, gains in ((1, gain), (0, 1 / gain)):
        alone = rng.random((parameters.pairs, len(kind))) < frequency
        shows = np.where(together, joint, alone) & (kind != absent)
        # Give empty samples one concept of their own kind: without offset and noise they would be zero vectors.
        possible = np.where((kind != absent) & (kind != 2), frequency, 0)
        empty = np.flatnonzero(~shows.any(1))
        shows[empty, rng.choice(len(kind), len(empty), p=possible / possible.sum())] = True
        strength = 0.5 + rng.gamma(2.0, 0.25, (parameters.pairs, len(kind)))
        codes.append(shows * strength * gains)
    clean = [c @ atoms for c in codes]
    length = np.sqrt(np.mean([np.square(z).sum(1).mean() for z in clean]))
    offset = rng.standard_normal(parameters.dim)
    offset *= parameters.gap * length / 2 / np.linalg.norm(offset)
    embeddings = [
        z + sign * offset + rng.standard_normal(z.shape) * parameters.noise * length / parameters.dim**0.5
        for z, sign in zip(clean, (1, -1), strict=True)
    ]
    ratio = np.select([kind == 0, kind == 1], [np.inf, 0.0], gain**2)
    image, text, directions, ratios, image_codes, text_codes = (
        torch.from_numpy(x).float() for x in (*embeddings, atoms, ratio, *codes)
    )
    return PlantedPairs(image, text, directions, torch.from_numpy(kind), ratios, image_codes, text_codes)


def write_planted(directory: Path, parameters: PlantedParameters, dtype: str = "float16") -> None:
    """Write synthetic pairs as a feature store, with a ground truth file in the same folder."""
    planted = plant(parameters)
    shards = range(-(-parameters.pairs // SHARD))
    writer = FeatureStoreWriter(directory, len(shards), dtype)
    for shard in shards:
        rows = slice(shard * SHARD, (shard + 1) * SHARD)
        shown = [[np.flatnonzero(row) for row in c[rows].numpy()] for c in (planted.image_codes, planted.text_codes)]
        metadata = [
            {
                "key": f"{shard * SHARD + i:08d}",
                "caption": "concepts " + " ".join(map(str, text)),
                "image_concepts": " ".join(map(str, image)),
            }
            for i, (image, text) in enumerate(zip(*shown, strict=True))
        ]
        writer.write(shard, planted.image[rows], planted.text[rows], metadata)
    truth = {name: getattr(planted, name).contiguous() for name in ANSWERS}
    save_file(truth, directory / TRUTH_FILE)
    made = Manifest(
        "planted",
        "planted",
        "planted",
        parameters_digest(parameters),
        parameters.dim,
        parameters.pairs,
        dtype,
        content="",
    )
    writer.finish(made, list(shards))


def read_truth(directory: Path) -> dict[str, Tensor]:
    """Return the ground truth of a synthetic store: the `PlantedPairs` attributes in ANSWERS, by name."""
    return load_file(directory / TRUTH_FILE)


def parameters_digest(parameters: PlantedParameters) -> str:
    """Return a digest that identifies the result of `plant`."""
    return hashlib.sha256(json.dumps(asdict(parameters), sort_keys=True).encode()).hexdigest()[:16]


def _frequencies(parameters: PlantedParameters) -> dict[str, np.ndarray[Any, Any]]:
    """Probability of each concept per sample, by kind: Zipf's law within a kind, `active` concepts on average."""
    weights = {
        name: np.arange(1, getattr(parameters, f"{name}_atoms") + 1, dtype=float) ** -parameters.zipf for name in KINDS
    }
    # Shared concepts make up the same share in both modalities.
    own = {name: weights[name] / weights[name].sum() for name in KINDS}
    share = parameters.shared_atoms / (parameters.shared_atoms + (parameters.image_atoms + parameters.text_atoms) / 2)
    return {name: parameters.active * (share if name == "shared" else 1 - share) * own[name] for name in KINDS}
