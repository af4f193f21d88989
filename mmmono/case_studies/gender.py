"""Case study 1: whether ImgD or TextD features carry a concept (Section 4.1, Appendix A.4.1).

The paper compares female and male; any pair of concepts works.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from mmmono.case_studies.drawn_accuracy import DrawnAccuracy
from mmmono.core.statistics import Estimate, Interval, jackknife
from mmmono.features.store import MODALITIES, Modality
from mmmono.modality import LIVE_CLASSES, FeatureClass, Partition
from mmmono.modality.random_sets import Activity, Match, RandomSet, random_name, random_pool, random_set

Array = np.ndarray[Any, Any]
ROUNDING = 1e-9  # squared length of a difference over that of its ends up to which it is rounding
BLOCK = 1024  # samples at a time
CARRIERS: tuple[FeatureClass, ...] = ("ImgD", "TextD")  # classes that may carry a concept
Space = Callable[[Float[Tensor, "samples features"], Modality], Float[Tensor, "samples dim"]]


@dataclass(frozen=True)
class ConceptRemoval:
    """One entry of Table 2; accuracies are between 0 and 1.

    Estimates are means over draws. Their intervals are over samples and references, both of which stand for all samples
    of their concept (`DrawnAccuracy`); there are no bounds for a single draw.

    Attributes:
        samples: modality of the classified samples, from which features were removed.
        concept: true concept of the classified samples.
        removed: class whose features were removed, or `Random` ones, with the class that they are like (`random_name`).
        neurons: number of features removed.
        energy: share of Σ z² over the samples that the removed features carry, mean over draws.
        mismatch: largest mismatch of the random sets, see `RandomSet`; None for a class.
        baseline: accuracy with all features.
        drop: baseline − accuracy without the features, the change in Table 2.
        beyond_random: drop − drop without random features like them, in the same draws; None for `Random`.
    """

    samples: Modality
    concept: str
    removed: str
    neurons: int
    energy: float
    mismatch: float | None
    baseline: Interval
    drop: Interval
    beyond_random: Estimate | None


@dataclass(frozen=True)
class RemovalSettings:
    """How references and removed features are drawn, and where similarity is measured.

    Attributes:
        references: number of references per concept.
        draws: number of random draws of references and features.
        space: maps activations to the space of the cosines, such as a decoder; None for the activations themselves.
        random_sets: what random sets share with the removed features of a class besides their number: `energy`,
            `frequency`, or only the `size`; see `mmmono.modality.random_sets`.
        seed: seed of the draws.
    """

    references: int = 1
    draws: int = 50
    space: Space | None = None
    random_sets: Match = "energy"
    seed: int = 0

    def unit_vectors(
        self, activations: Float[Tensor, "samples features"], modality: Modality
    ) -> Float[Tensor, "samples dim"]:
        """Map activations to the space of the cosines and scale each row to length 1."""
        return F.normalize(self.space(activations, modality) if self.space else activations, dim=1)


def concept_removal(
    codes: dict[Modality, Float[Tensor, "samples features"]],
    labels: tuple[Bool[Array, " samples"], Bool[Array, " samples"]],
    candidates: Bool[Array, " samples"],
    partition: Partition,
    names: tuple[str, str],
    settings: RemovalSettings,
) -> list[ConceptRemoval]:
    """Classify samples by the nearest concept reference, with and without classes of features (Table 2).

    Each draw picks some candidates of each concept as its references. A sample is assigned to the concept whose mean
    reference has the larger cosine; a tie counts as half correct. The references keep all features. From the samples,
    n = min(|ImgD|, |TextD|) features are set to 0: n random ones of ImgD, of TextD, or n live features like either.

    Args:
        codes: activations on images and on texts; row i of both belongs to pair i.
        labels: masks of the samples of concept A and of concept B.
        candidates: mask of the samples that may be references.
        partition: partition of the features.
        names: names of concepts A and B.
        settings: number of references and draws, space of the cosines, and seed.

    Returns:
        One entry per modality, concept and removed class.

    Raises:
        ValueError: ImgD or TextD is empty, or a concept has too few candidates or samples.
    """
    _check_removal(labels, candidates, partition, names, settings.references)
    neurons = min(len(partition.image_dominant), len(partition.text_dominant))
    activity = {modality: Activity.of([codes[modality]]) for modality in MODALITIES}
    rng = np.random.default_rng(settings.seed)
    sides = (labels, labels[::-1])
    kept = {
        (modality, name): DrawnAccuracy(side, 5)
        for modality in MODALITIES
        for name, side in zip(names, sides, strict=True)
    }
    drawn: dict[Modality, list[list[RandomSet]]] = {modality: [] for modality in MODALITIES}
    for _ in range(settings.draws):
        references = [
            rng.choice(np.flatnonzero(members & candidates), settings.references, replace=False) for members in labels
        ]
        classes = {name: rng.choice(partition[name].numpy(), neurons, replace=False) for name in CARRIERS}
        for modality in MODALITIES:
            removals = _removals(classes, partition, activity[modality].weights(settings.random_sets), settings, rng)
            drawn[modality].append(removals)
            leads = _leads(codes[modality], modality, references, [r.members for r in removals], settings)
            for name, own_lead, own, other in zip(names, (leads, -leads), references, references[::-1], strict=True):
                kept[modality, name].add((own_lead > 0) + 0.5 * (own_lead == 0), own, other)
    return [
        entry for modality in MODALITIES for name in names
        for entry in _entries(kept[modality, name], (modality, name), drawn[modality], activity[modality], settings)
    ]  # fmt: skip


def _removals(
    classes: dict[FeatureClass, Array],
    partition: Partition,
    weights: Array,
    settings: RemovalSettings,
    rng: np.random.Generator,
) -> list[RandomSet]:
    """Features that a draw removes: none, some of each class, and random ones like these."""
    sets = [RandomSet(np.empty(0, np.int64), 0.0), *(RandomSet(members, 0.0) for members in classes.values())]
    for name, members in classes.items():
        pool = random_pool(partition, name, len(members), settings.random_sets)
        sets.append(random_set(pool, members, weights, rng))
    if settings.random_sets == "size":
        sets[-1] = sets[-2]  # nothing tells them apart: one random set for both classes
    return sets


def _check_removal(
    labels: tuple[Bool[Array, " samples"], Bool[Array, " samples"]],
    candidates: Bool[Array, " samples"],
    partition: Partition,
    names: tuple[str, str],
    references: int,
) -> None:
    """Raise ValueError if a class is empty or a concept has too few candidates or samples."""
    if not len(partition.image_dominant) or not len(partition.text_dominant):
        raise ValueError(
            f"{len(partition.image_dominant)} features are ImgD and {len(partition.text_dominant)} TextD: both are needed"
        )
    for name, members in zip(names, labels, strict=True):
        ready = int((members & candidates).sum())
        if ready < references or members.sum() <= references:
            raise ValueError(
                f"concept {name!r} has {int(members.sum())} samples, {ready} of them fit for references: "
                f"{references} references and at least one sample more are needed"
            )


def _leads(
    z: Float[Tensor, "samples features"],
    modality: Modality,
    references: list[Array],
    removals: list[Array],
    settings: RemovalSettings,
) -> Float[Array, "removals samples"]:
    """Cosine of each sample to concept A's mean reference minus that to B's, without each removal's features."""
    means = torch.stack([settings.unit_vectors(z[rows], modality).mean(0) for rows in references])
    anchors = F.normalize(means, dim=1)
    kept = z.new_ones(len(removals), z.shape[1])
    for row, removed in zip(kept, removals, strict=True):
        row[removed] = 0
    leads = [_differences(block, modality, anchors, kept, settings) for block in z.split(BLOCK)]
    return torch.cat(leads, dim=1).numpy()


def _differences(
    z: Float[Tensor, "samples features"],
    modality: Modality,
    anchors: Float[Tensor, "2 dim"],
    kept: Float[Tensor, "removals features"],
    settings: RemovalSettings,
) -> Float[Tensor, "removals samples"]:
    """Difference of the cosines to both anchors, of samples without the features that are 0 in each row of `kept`."""
    if settings.space:
        cosines = torch.stack([settings.unit_vectors(z * row, modality) @ anchors.T for row in kept])
    else:  # the features that stay are weights of two products over all features: nothing is copied
        products = (z @ (kept[:, None] * anchors).flatten(0, 1).T).unflatten(1, (len(kept), 2))
        lengths = (z.square() @ kept.T).sqrt().clamp_min(1e-12)  # as in F.normalize
        cosines = (products / lengths[..., None]).transpose(0, 1)
    return cosines[..., 0] - cosines[..., 1]


def _entries(
    accuracy: DrawnAccuracy,
    of: tuple[Modality, str],
    drawn: list[list[RandomSet]],
    activity: Activity,
    settings: RemovalSettings,
) -> list[ConceptRemoval]:
    """Summarize the accuracies of one modality and concept; conditions are in the order of `_removals`."""
    unit = np.eye(5)
    randoms = [random_name(settings.random_sets, name) for name in CARRIERS]
    entries = []
    for place, removed in enumerate(dict.fromkeys([*map(str, CARRIERS), *randoms]), start=1):
        sets, is_class = [removals[place] for removals in drawn], place <= len(CARRIERS)
        beyond = unit[place + len(CARRIERS)] - unit[place] if is_class else None
        entries.append(
            ConceptRemoval(
                *of, removed, len(sets[0].members),
                energy=float(np.mean([activity.share(s.members) for s in sets])),
                mismatch=None if is_class else max(s.mismatch for s in sets),
                baseline=accuracy.mean(unit[0]).rate_interval(accuracy.samples),
                drop=accuracy.mean(unit[0] - unit[place]).of_shares(accuracy.samples, limit=1.0).interval(),
                beyond_random=None if beyond is None else accuracy.mean(beyond).of_outcomes(accuracy.samples),
            )
        )  # fmt: skip
    return entries


@dataclass(frozen=True)
class PairedDifference:
    """How much a class of features contributes to the difference between minimal pairs.

    Minimal pairs are samples that differ only in the concept.

    Attributes:
        samples: modality of the samples.
        members: class of features.
        share: share of the class in the squared difference of the pairs' activations.
        energy: share of the class in the squared norm of the activations.
        enrichment: share / energy with its jackknife interval over pairs; above 1 if the class carries more of the concept
            than of the activations overall.
        pairs: number of minimal pairs.
    """

    samples: Modality
    members: FeatureClass
    share: float
    energy: float
    enrichment: Interval
    pairs: int


def paired_differences(
    codes: dict[Modality, Float[Tensor, "samples features"]], pairs: list[tuple[int, int]], partition: Partition
) -> list[PairedDifference]:
    """Compute the share of each class in the difference between minimal pairs, with intervals over pairs.

    Args:
        codes: activations on images and on texts.
        pairs: rows of minimal pairs: a sample of concept A and one of concept B that differ only in the concept.
        partition: partition of the features.

    Returns:
        One entry per modality and class; classes without activations, and modalities without differences, such as equal
        captions, are left out. A difference by rounding alone, as of one caption in two batches, is none.

    Raises:
        ValueError: there are fewer than two pairs.
    """
    if len(pairs) < 2:
        raise ValueError(f"{len(pairs)} pairs that differ in the concept alone: at least 2 are needed")
    first, second = torch.tensor(pairs).T
    rows = []
    for modality in MODALITIES:
        a, b = codes[modality][first].double(), codes[modality][second].double()
        difference, energy = (a - b).square(), a.square() + b.square()
        difference[difference.sum(1) <= ROUNDING * energy.sum(1)] = 0
        for name in LIVE_CLASSES:
            members = partition[name]
            of_class = [difference[:, members].sum(1), energy[:, members].sum(1)]
            sums = torch.stack([of_class[0], difference.sum(1), of_class[1], energy.sum(1)]).numpy()
            totals = sums.sum(1)
            if totals[2] == 0 or totals[1] == 0:
                continue
            share, of_energy = float(totals[0] / totals[1]), float(totals[2] / totals[3])
            rows.append(PairedDifference(modality, name, share, of_energy, enrichment(sums), len(pairs)))
    return rows


def enrichment(sums: Float[Array, "4 pairs"]) -> Interval:
    """Ratio of a class' share in differences to its share in energy, with a jackknife interval of its logarithm.

    Args:
        sums: squared difference of each pair within the class and in all features, energy within it and in all.
    """

    def logarithm(totals: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.log(totals[0] / totals[1]) - np.log(totals[2] / totals[3]))

    totals = sums.sum(1)
    value = float(logarithm(totals))
    found = jackknife(value, logarithm(totals[:, None] - sums)).interval()
    low, high = (math.exp(bound) for bound in (found.low, found.high))
    return Interval(math.exp(value), low, high, method="jackknife of the logarithm")


def class_share(codes: Float[Tensor, "samples features"], members: Tensor, top: int = 20) -> Float[Tensor, " samples"]:
    """Share of a class among the `top` most activated features of each sample (Figure 7, Table 6).

    Only features with a positive activation count; NaN for samples without any.

    Args:
        codes: activations.
        members: indices of the features of the class.
        top: number of features per sample.
    """
    values, features = codes.topk(min(top, codes.shape[1]), dim=1)
    active = values > 0
    of_class = torch.zeros(codes.shape[1], dtype=torch.bool)
    of_class[members] = True
    return ((of_class[features] & active).sum(1) / active.sum(1)).float()
