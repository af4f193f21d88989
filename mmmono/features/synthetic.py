"""Synthetic paired embeddings with ground truth: image-only, text-only and shared concepts of a known dictionary."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from safetensors.torch import save_file
from torch import Tensor

from mmmono.core.errors import ConfigError
from mmmono.core.saved import read_tensors
from mmmono.features.covariance import covariance_root
from mmmono.features.store import MODALITIES, FeatureStore, Manifest, content_fingerprint
from mmmono.features.writer import FeatureStoreWriter

TRUTH_FILE = "truth.safetensors"
ANSWERS = ("atoms", "kind", "gain", "image_codes", "text_codes")
KINDS = ("image", "text", "shared")
SHARD = 16_384
COVARIANCE_ROWS = 50_000  # of a store, for the covariance of the noise
# Options that came later: without them, addresses and numbers are as before.
LATER = (
    "group_size", "group_likeness", "tail", "dense", "parents", "leak", "leak_frequency", "gain_ratio", "noise_from",
    "direction_cosine",
)  # fmt: skip

Array = np.ndarray[Any, Any]
Rng = np.random.Generator


@dataclass(frozen=True)
class SyntheticParameters:
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
        group_size: number of consecutive pairs in a group, such as captions of one image.
        group_likeness: probability that what is drawn for a concept in a sample is what was drawn for the first sample of
            its group, instead of independent of it.
        tail: standard deviation of log(strength) in addition to the strengths' gamma distribution; their mean stays.
        dense: standard deviation of a normal part of all codes of a sample's modality, present or not, with the
            correlation `correlation` between the sides of shared concepts.
        parents: share of the concepts of each kind that are parents: one is present whenever one of its children is.
        leak: strength of single-modality concepts in the other modality, relative to that in their own.
        leak_frequency: how often they are there, relative to their own modality; independent of the pair.
        gain_ratio: largest ratio of a shared concept's gains in the two modalities beyond that of `gain_spread`; log-ratios
            are uniform between its inverse and it.
        noise_from: folder of a feature store of width `dim`; the noise of either modality then has the covariance of its
            embeddings, in the total size of `noise`. None: the same in all directions.
        direction_cosine: cosine between the direction of a shared concept in images and that in texts; 1 if it has one
            direction.

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
    group_size: int = 1
    group_likeness: float = 0.9
    tail: float = 0.0
    dense: float = 0.0
    parents: float = 0.0
    leak: float = 0.0
    leak_frequency: float = 0.5
    gain_ratio: float = 1.0
    noise_from: str | None = None
    direction_cosine: float = 1.0

    def __post_init__(self) -> None:
        for name in ("pairs", "dim", "image_atoms", "text_atoms", "shared_atoms", "group_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"dataset.{name}={getattr(self, name)}: synthetic pairs need at least one")
        for name in ("correlation", "group_likeness", "parents", "leak_frequency"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"dataset.{name}={getattr(self, name)} is a probability: give 0 to 1")
        for name in ("zipf", "gain_spread", "gap", "noise", "tail", "dense", "leak"):
            if getattr(self, name) < 0:
                raise ConfigError(f"dataset.{name}={getattr(self, name)} must not be negative")
        if not -1 < self.direction_cosine <= 1:
            raise ConfigError(
                f"dataset.direction_cosine={self.direction_cosine} is a cosine: give more than -1, up to 1"
            )
        if self.gain_ratio < 1:
            raise ConfigError(f"dataset.gain_ratio={self.gain_ratio}: give at least 1, equal gains in both modalities")
        atoms = min(self.image_atoms, self.text_atoms) + self.shared_atoms
        if not 0 < self.active <= atoms:
            raise ConfigError(
                f"dataset.active={self.active} concepts a sample, but a modality has only {atoms} atoms: give more atoms"
            )
        if (highest := float(max(_frequencies(self)[kind].max() for kind in KINDS))) > 1:
            raise ConfigError(
                f"dataset.active={self.active} and dataset.zipf={self.zipf} want the commonest concept in {highest:.2f} of "
                "all samples, a probability above 1: lower either, or have more atoms"
            )


@dataclass(frozen=True)
class SyntheticPairs:
    """Synthetic embeddings with their ground truth.

    Attributes:
        image, text: embeddings.
        atoms: unit directions of the concepts: image-only first, then text-only, then shared. Of a shared concept whose
            directions in images and in texts differ, it is the middle of the two.
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


def synthesize(parameters: SyntheticParameters) -> SyntheticPairs:
    """Draw concepts, codes and embeddings: z = codes · atoms ± offset + noise, with + for images and − for texts.

    Raises:
        ConfigError: the store in `noise_from` is missing or has another width.
    """
    rng = np.random.default_rng(parameters.seed)
    counts = (parameters.image_atoms, parameters.text_atoms, parameters.shared_atoms)
    kind = np.repeat(np.arange(3), counts)
    atoms = rng.standard_normal((len(kind), parameters.dim))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    frequency = np.concatenate([_frequencies(parameters)[name] for name in KINDS])
    gain = np.exp(np.where(kind == 2, rng.standard_normal(len(kind)) * parameters.gain_spread / 2, 0))
    gain *= np.exp(
        np.where(kind == 2, _extra(parameters, 0).uniform(-1, 1, len(kind)), 0) * np.log(parameters.gain_ratio) / 2
    )
    codes = _codes(parameters, rng, kind, frequency, gain)
    clean = [c @ directions for c, directions in zip(codes, _directions(parameters, kind, atoms), strict=True)]
    length = np.sqrt(np.mean([np.square(z).sum(1).mean() for z in clean]))
    offset = rng.standard_normal(parameters.dim)
    offset *= parameters.gap * length / 2 / np.linalg.norm(offset)
    shapes = _noise_shapes(parameters)
    embeddings = [
        z + sign * offset + shape(rng.standard_normal(z.shape)) * parameters.noise * length / parameters.dim**0.5
        for z, sign, shape in zip(clean, (1, -1), shapes, strict=True)
    ]
    ratio = np.select([kind == 0, kind == 1], [np.inf, 0.0], gain**2)
    image, text, directions, ratios, image_codes, text_codes = (
        torch.from_numpy(x).float() for x in (*embeddings, atoms, ratio, *codes)
    )
    return SyntheticPairs(image, text, directions, torch.from_numpy(kind), ratios, image_codes, text_codes)


def write_synthetic(directory: Path, parameters: SyntheticParameters, dtype: str = "float16") -> None:
    """Write synthetic pairs as a feature store, with a ground truth file in the same folder."""
    synthetic = synthesize(parameters)
    shards = range(-(-parameters.pairs // SHARD))
    writer = FeatureStoreWriter(directory, len(shards), dtype)
    for shard in shards:
        rows = slice(shard * SHARD, (shard + 1) * SHARD)
        shown = [
            [np.flatnonzero(row) for row in c[rows].numpy()] for c in (synthetic.image_codes, synthetic.text_codes)
        ]
        metadata = [
            {
                "key": f"{shard * SHARD + i:08d}",
                "caption": "concepts " + " ".join(map(str, text)),
                "image_concepts": " ".join(map(str, image)),
                **_group(parameters, shard * SHARD + i),
            }
            for i, (image, text) in enumerate(zip(*shown, strict=True))
        ]
        writer.write(shard, synthetic.image[rows], synthetic.text[rows], metadata)
    truth = {name: getattr(synthetic, name).contiguous() for name in ANSWERS}
    save_file(truth, directory / TRUTH_FILE)
    made = Manifest(
        "synthetic",
        "synthetic",
        "synthetic",
        parameters_digest(parameters),
        parameters.dim,
        parameters.pairs,
        dtype,
        content="",
    )
    writer.finish(made, list(shards))


def read_truth(directory: Path) -> dict[str, Tensor]:
    """Return the ground truth of a synthetic store: the `SyntheticPairs` attributes in ANSWERS, by name."""
    return read_tensors(directory / TRUTH_FILE)


def parameters_digest(parameters: SyntheticParameters) -> str:
    """Return a digest that identifies the result of `synthesize`."""
    return hashlib.sha256(json.dumps(identity(parameters), sort_keys=True).encode()).hexdigest()[:16]


def identity(parameters: SyntheticParameters) -> dict[str, Any]:
    """Everything that determines the result of `synthesize`, without the options in LATER that have their defaults."""
    values = asdict(parameters)
    found = {f.name: values[f.name] for f in fields(parameters) if f.name not in LATER or values[f.name] != f.default}
    if parameters.noise_from is not None:
        found["noise_from"] = content_fingerprint(parameters.noise_from)
    return found


def _codes(parameters: SyntheticParameters, rng: Rng, kind: Array, frequency: Array, gain: Array) -> list[Array]:
    """Strength of each concept in each image and in each text."""
    shape = (parameters.pairs, len(kind))
    joint = _grouped(parameters, rng.random(shape), 1) < frequency
    together = _grouped(parameters, rng.random(shape), 2) < parameters.correlation
    codes = []
    for side, (absent, gains) in enumerate(((1, gain), (0, 1 / gain))):
        alone = _grouped(parameters, rng.random(shape), 10 + side) < frequency
        shows = np.where(together, joint, alone) & (kind != absent)
        # Give empty samples one concept of their own kind: without offset and noise they would be zero vectors.
        possible = np.where((kind != absent) & (kind != 2), frequency, 0)
        empty = np.flatnonzero(~shows.any(1))
        shows[empty, rng.choice(len(kind), len(empty), p=possible / possible.sum())] = True
        shows = _with_parents(parameters, shows)
        strength = _grouped(parameters, 0.5 + rng.gamma(2.0, 0.25, shape), 20 + side)
        extra = _extra(parameters, 30 + side)
        if parameters.tail:
            more = _grouped(parameters, extra.standard_normal(shape), 40 + side)
            strength *= np.exp(parameters.tail * more - parameters.tail**2 / 2)
        found = shows * strength * gains
        if parameters.leak:
            leaks = (kind == absent) & (extra.random(shape) < frequency * parameters.leak_frequency)
            found += leaks * strength * parameters.leak
        if parameters.dense:
            found += _dense(parameters, kind, absent, extra) * gains
        codes.append(found)
    return codes


def _directions(parameters: SyntheticParameters, kind: Array, atoms: Array) -> tuple[Array, Array]:
    """Directions of the concepts in images and in texts: those of a shared one lie on both sides of its atom."""
    if parameters.direction_cosine == 1:
        return atoms, atoms
    away = _extra(parameters, 5).standard_normal(atoms.shape)
    away -= (away * atoms).sum(1, keepdims=True) * atoms
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    angle = np.where(kind == 2, np.arccos(parameters.direction_cosine) / 2, 0)[:, None]
    return np.cos(angle) * atoms + np.sin(angle) * away, np.cos(angle) * atoms - np.sin(angle) * away


def _dense(parameters: SyntheticParameters, kind: Array, absent: int, rng: Rng) -> Array:
    """Normal part of the codes of one side: what both sides share, and its own."""
    shape = (parameters.pairs, len(kind))
    weight = np.where(kind == 2, parameters.correlation, 0)
    common, own = _extra(parameters, 3).standard_normal(shape), rng.standard_normal(shape)
    found: Array = (np.sqrt(weight) * common + np.sqrt(1 - weight) * own) * parameters.dense
    return np.where(kind == absent, parameters.leak, 1.0) * found


def _extra(parameters: SyntheticParameters, number: int) -> Rng:
    """Random numbers of an option, apart from those that the parameters without it draw."""
    return np.random.default_rng([parameters.seed, 1 + number])


def _grouped(parameters: SyntheticParameters, drawn: Array, number: int) -> Array:
    """Replace what is drawn for each sample by what is drawn for the first of its group, with the group's likeness."""
    if parameters.group_size == 1:
        return drawn
    first = np.arange(len(drawn)) // parameters.group_size * parameters.group_size
    alike = _extra(parameters, 100 + number).random(drawn.shape) < parameters.group_likeness
    return np.where(alike, drawn[first], drawn)


def _with_parents(parameters: SyntheticParameters, shows: Array) -> Array:
    """Make each parent present where one of its children is: the first concepts of a kind are its parents, by turns."""
    shows = shows.copy()
    start = 0
    for kind in KINDS:
        count = getattr(parameters, f"{kind}_atoms")
        parents = round(parameters.parents * count)
        for parent in range(parents):
            children = shows[:, start + parents + parent : start + count : parents]
            shows[:, start + parent] |= children.any(1)
        start += count
    return shows


def _noise_shapes(parameters: SyntheticParameters) -> list[Callable[[Array], Array]]:
    """For images and texts, what gives white noise the covariance of a store, with the same root mean square norm."""
    if parameters.noise_from is None:
        return [lambda white: white] * 2
    store = FeatureStore(parameters.noise_from)
    if store.dim != parameters.dim:
        raise ConfigError(
            f"dataset.dim={parameters.dim}, but the store in dataset.noise_from={parameters.noise_from} has {store.dim}: "
            f"set dataset.dim={store.dim}"
        )
    roots = []
    for modality in MODALITIES:
        try:
            roots.append(covariance_root(store.read(modality, 0, min(len(store), COVARIANCE_ROWS))).numpy())
        except ValueError as error:
            raise ConfigError(
                f"dataset.noise_from={parameters.noise_from} has no covariance of {modality} embeddings: {error}"
            ) from error
    return [lambda white, root=root: white @ root for root in roots]  # type: ignore[misc]


def _group(parameters: SyntheticParameters, pair: int) -> dict[str, str]:
    return {} if parameters.group_size == 1 else {"group": f"{pair // parameters.group_size:08d}"}


def _frequencies(parameters: SyntheticParameters) -> dict[str, np.ndarray[Any, Any]]:
    """Probability of each concept per sample, by kind: Zipf's law within a kind, `active` concepts on average."""
    weights = {
        name: np.arange(1, getattr(parameters, f"{name}_atoms") + 1, dtype=float) ** -parameters.zipf for name in KINDS
    }
    # Shared concepts make up the same share in both modalities.
    own = {name: weights[name] / weights[name].sum() for name in KINDS}
    share = parameters.shared_atoms / (parameters.shared_atoms + (parameters.image_atoms + parameters.text_atoms) / 2)
    return {name: parameters.active * (share if name == "shared" else 1 - share) * own[name] for name in KINDS}
