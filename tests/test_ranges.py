"""Every public function and constructor says which numeric argument is out of range, before it computes anything."""

import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mmmono.core.errors import ConfigError
from mmmono.core.proportions import wilson
from mmmono.core.ranges import check_number, check_whole
from mmmono.core.statistics import Estimate
from mmmono.data import CocoPairs, DrawingPairs, IconPairs, OpenMojiPairs, RemoteSettings, SplitShares
from mmmono.dictionaries import (
    NCLHead,
    NCLModule,
    PairedFeatures,
    ReconstructionMoments,
    SAEModule,
    ShuffledBatches,
    Snapshots,
    SparsityMoments,
    TopKSAE,
    TrainingPlateau,
)
from mmmono.dictionaries.base import dictionary_class
from mmmono.dictionaries.datamodule import SequentialBatches
from mmmono.dictionaries.linear import LinearMap, fit_ica, random_directions, random_rotation
from mmmono.features.retrieval import recall_at_k
from mmmono.features.store import FeatureStore
from mmmono.interpretability import (
    BothSidesStream,
    HistogramStream,
    Steer,
    TopSampleSearch,
    TopStream,
    co_firing,
    counterparts,
    embsim,
    nearest_features,
)
from mmmono.interpretability.top_samples import TopSamples
from mmmono.modality import (
    AblationSettings,
    DominanceResamples,
    ScaleStream,
    dominance_scores,
    groups_for_border,
    groups_for_half_width,
    groups_for_power,
    partition_by_counts,
    partition_by_margin,
    partition_by_null,
    partition_by_sigma,
    resample_dominance,
    score_intervals,
)
from mmmono.modality.consequences import RemovalPlan
from mmmono.modality.planning import Aims
from mmmono.modality.seed_agreement import HalvesStream

NAN, INF = math.nan, math.inf
WHOLE = (0, -1, 2.5, NAN, True, "3")  # no number of things
NOT_NEGATIVE = (-1, 2.5, NAN)  # none that may be 0
POSITIVE = (0, -0.1, NAN, INF, "1")  # no positive number
WEIGHT = (-0.1, NAN, INF)  # no number from 0 on
SHARE = (0, 1, 95, -0.1, NAN)  # none between 0 and 1
Case = tuple[Callable[..., Any], str, tuple[Any, ...]]

ROWS = torch.rand(6, 4)
SCORES = torch.tensor([0.1, 0.5, 0.9, NAN], dtype=torch.float64)
DOMINANCE = dominance_scores([(ROWS, ROWS.flip(0))])
VIEW = list(range(8))
SAES = [
    "topk_sae", "batch_topk_sae", "matryoshka_sae", "jumprelu_sae", "gated_sae", "l1_sae", "matching_pursuit_sae",
    "infonce_sae", "iso_energy_sae", "group_sparse_sae", "sparc_sae", "matched_saes",
]  # fmt: skip
OF_SAES = {
    "k": (
        "topk_sae batch_topk_sae matryoshka_sae matching_pursuit_sae infonce_sae iso_energy_sae group_sparse_sae sparc_sae "
        "matched_saes",
        (*WHOLE, 9),
    ),
    "coefficient": ("jumprelu_sae gated_sae l1_sae infonce_sae iso_energy_sae group_sparse_sae", WEIGHT),
    "cross_coefficient": ("sparc_sae", WEIGHT),
    "threshold_rate": ("batch_topk_sae", (0, 1.1, NAN)),
    "levels": ("matryoshka_sae", ((NAN, 1.0), (0.5, 2.0), ("a", 1.0))),
    "bandwidth": ("jumprelu_sae", POSITIVE),
    "threshold": ("jumprelu_sae", POSITIVE),
    "tanh_scale": ("jumprelu_sae", POSITIVE),
    "target_l0": ("jumprelu_sae", POSITIVE),
    "temperature": ("infonce_sae", POSITIVE),
    "mask": ("group_sparse_sae", (-0.1, 1, NAN)),
    "match_pairs": ("matched_saes", (1, 2.5)),
}


def of(call: Callable[..., Any], **bad: tuple[Any, ...]) -> Iterator[Case]:
    """Cases of one function: values that each of its arguments must not have."""
    for name, values in bad.items():
        yield call, name, values


def cases() -> Iterator[Case]:
    """All functions, with the arguments that have a range."""
    for architecture in SAES:
        made = dictionary_class(architecture)
        small = {"k": 2} if architecture in OF_SAES["k"][0].split() else {}
        yield made, "dim", WHOLE
        yield lambda made=made, small=small, **kw: made(8, **small, **kw), "num_features", WHOLE
        for name, (where, values) in OF_SAES.items():
            if architecture in where.split():
                kept = small if name != "k" else {}
                yield lambda made=made, kept=kept, **kw: made(8, **kept, **kw), name, values
    yield from of(NCLHead, dim=WHOLE)
    yield from of(lambda **kw: NCLHead(4, **kw), num_features=WHOLE)
    yield from of(lambda **kw: LinearMap(**{"dim": 4, "num_features": 4, **kw}), dim=WHOLE, num_features=WHOLE)
    yield from of(random_rotation, dim=WHOLE)
    yield from of(lambda **kw: random_directions(**{"dim": 4, "count": 4, **kw}), dim=WHOLE, count=WHOLE)
    yield from of(lambda **kw: fit_ica(ROWS, **kw), max_iter=WHOLE)
    training = dict(lr=POSITIVE, warmup_steps=NOT_NEGATIVE, decay_fraction=(-0.1, 1.1, NAN), dead_after=WHOLE)
    yield from of(
        lambda **kw: SAEModule(TopKSAE(4, k=2), **kw),
        auxk=NOT_NEGATIVE, auxk_coefficient=WEIGHT, penalty_warmup_steps=NOT_NEGATIVE, **training,
    )  # fmt: skip
    yield from of(lambda **kw: NCLModule(NCLHead(4), **kw), input_noise=WEIGHT, **training)
    yield from of(lambda **kw: PairedFeatures(VIEW, VIEW, **kw), batch_size=WHOLE, pool_rows=WHOLE)
    reader = SimpleNamespace(view=VIEW)
    sizes = {"batch_size": WHOLE, "rank": (-1, 1, 2), "world_size": WHOLE}
    yield from of(lambda **kw: ShuffledBatches(reader, **{"batch_size": 2, **kw}), pool_rows=WHOLE, **sizes)
    yield from of(lambda **kw: SequentialBatches(reader, **{"batch_size": 2, **kw}), **sizes)
    yield from of(TrainingPlateau, patience=WHOLE, min_fall=WEIGHT, min_gain=WEIGHT)
    yield from of(lambda **kw: Snapshots(Path(), **kw), every=WHOLE)
    yield from of(SparsityMoments, num_features=WHOLE)
    yield from of(
        lambda **kw: ReconstructionMoments(**{"dim": 4, "num_features": 4, **kw}), dim=WHOLE, num_features=WHOLE
    )
    yield from of(lambda **kw: next(FeatureStore.blocks([None] * 6, **kw)), block_size=WHOLE)
    yield from of(lambda **kw: recall_at_k(ROWS, ROWS, **kw), ks=((0,), (-1,), (2.5,), (NAN,)))

    yield from of(lambda **kw: partition_by_sigma(SCORES, **kw), n_sigma=(-1, NAN))
    yield from of(lambda **kw: partition_by_margin(SCORES, **kw), margin=(-0.1, 0.5, NAN))
    yield from of(lambda **kw: partition_by_null(SCORES, SCORES, **kw), fdr=(-0.1, 5, NAN, "1"))
    counts = dict(image_dominant=(-1, 1.5, NAN), text_dominant=(-1, 1.5, NAN))
    yield from of(lambda **kw: partition_by_counts(SCORES, **{"image_dominant": 1, "text_dominant": 1, **kw}), **counts)
    yield from of(lambda **kw: score_intervals(DOMINANCE, **kw), level=SHARE)
    resamples = resample_dominance([(ROWS, ROWS.flip(0))], 20, 20, 2)
    yield from of(lambda **kw: DominanceResamples.interval(resamples, **kw), level=SHARE)
    yield from of(
        lambda **kw: resample_dominance([(ROWS, ROWS)], **kw),
        n_permutations=NOT_NEGATIVE, n_bootstrap=NOT_NEGATIVE, n_halves=NOT_NEGATIVE,
    )  # fmt: skip
    yield from of(lambda **kw: HalvesStream(4, **kw), n_halves=WHOLE)
    yield from of(
        lambda **kw: groups_for_half_width(DOMINANCE, **{"half_width": 0.1, **kw}), half_width=POSITIVE, level=SHARE
    )
    tests = {"power": SHARE, "alpha": SHARE}
    yield from of(lambda **kw: groups_for_power(DOMINANCE, **{"difference": 0.1, **kw}), difference=POSITIVE, **tests)
    yield from of(
        lambda **kw: groups_for_border(**{"num_groups": 9, "distance": SCORES, "error": SCORES, **kw}), **tests
    )
    yield from of(Aims, half_width=POSITIVE, difference=POSITIVE, power=SHARE, fdr=SHARE)
    yield from of(ScaleStream, factors=((0.0,), (NAN,), (INF,), (-1.0,)))
    yield from of(AblationSettings, folds=(0, 6, 2.5), n_random=WHOLE)
    yield from of(RemovalPlan, n_random=(1, 2.5, NAN), ranked=NOT_NEGATIVE, shares=((NAN, 1.0), (0.5, 0.4, 1.0)))

    yield from of(HistogramStream, bins=(0, 6, 4.5, NAN))
    yield from of(TopStream, m=WHOLE)
    yield from of(BothSidesStream, m=WHOLE)
    found = TopSamples(ROWS, torch.zeros(6, 4, dtype=torch.int64))
    yield from of(found.first, m=WHOLE)
    yield from of(found.distinct, m=WHOLE)
    search = dict(deduplicate=False, metadata=pd.DataFrame({"key": list("abc")}))
    yield from of(lambda **kw: TopSampleSearch(**search, **kw), m=WHOLE)
    yield from of(lambda **kw: nearest_features(ROWS, **kw), count=WHOLE)
    yield from of(lambda **kw: counterparts(ROWS, ROWS, **kw), count=WHOLE)
    yield from of(lambda **kw: co_firing(ROWS > 0.5, ROWS > 0.5, **kw), count=WHOLE)
    samples = torch.rand(2, 3, 4)
    yield from of(lambda **kw: embsim(samples, samples, **kw), floor=POSITIVE)
    yield from of(
        lambda **kw: Steer(**{"features": (0,), "amounts": (1.0,), **kw}),
        features=((-1,), (0.5,)),
        amounts=((NAN,), (INF,)),
    )

    yield from of(SplitShares, train=(-0.1, 2, NAN), select=(-0.1, 2, NAN))
    for drawings in (OpenMojiPairs, IconPairs, DrawingPairs):
        yield from of(drawings, size=WHOLE, part_size=WHOLE)
    yield from of(partial(CocoPairs, SimpleNamespace(folder="coco")), part_size=WHOLE)

    yield from of(Estimate(1.0, 0.1, 5).interval, level=SHARE)
    yield from of(lambda **kw: Estimate(0.5, 0.1, 5).rate_interval(9, **kw), level=SHARE)
    yield from of(Estimate(1.0, 0.1, 5).equivalence_bound, confidence=SHARE)
    yield from of(Estimate(1.0, 0.1, 5).detectable, power=SHARE, level=SHARE)
    yield from of(lambda **kw: wilson(3, 9, **kw), confidence=SHARE)


CASES = [(call, name, value) for call, name, values in cases() for value in values]
IDS = [f"{place}-{name}-{value}" for place, (_, name, value) in enumerate(CASES)]  # equal in every process


@pytest.mark.parametrize(("call", "name", "value"), CASES, ids=IDS)
def test_argument_out_of_range(call: Callable[..., Any], name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name}\b.* (must|give|more than)"):
        call(**{name: value})


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), torch.tensor(3)])
def test_whole_numbers_of_any_library(value: Any) -> None:
    check_whole("k", value, most=3, of="latents")
    check_number("k", value, least=3, most=3)


def test_what_is_made_with_numbers_of_any_library_can_be_saved(tmp_path: Path) -> None:
    """A dictionary failed when it was saved, after it was trained."""
    for made in (
        dictionary_class("topk_sae")(np.int64(8), np.int32(16), k=torch.tensor(3)),
        dictionary_class("l1_sae")(8, 16, coefficient=np.float32(0.5)),
    ):
        made.save_pretrained(tmp_path)
        assert type(made).from_pretrained(tmp_path).config() == made.config()


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), torch.tensor(0.5)])
def test_numbers_of_any_library(value: Any) -> None:
    check_number("share", value, above=0, below=1)
    with pytest.raises(ValueError, match="share=.* must be a whole number of at least 1"):
        check_whole("share", value)


def test_messages() -> None:
    for call, message in (
        (lambda: check_whole("k", 2.5), "k=2.5 must be a whole number of at least 1"),
        (lambda: check_whole("k", 0), "k=0 must be at least 1"),
        (lambda: check_whole("k", 9, most=8, of="latents"), "k=9 must lie between 1 and the 8 latents"),
        (lambda: check_whole("k", "2", most=8), "k='2' must be a whole number between 1 and 8"),
        (lambda: check_number("lr", "1e-3", above=0), "lr='1e-3' must be a number above 0"),
        (lambda: check_number("lr", 0, above=0), "lr=0 must be above 0"),
        (lambda: check_number("fdr", np.float64(5), least=0, most=1), "fdr=5.0 must be at least 0 and at most 1"),
        (lambda: check_number("level", 95, above=0, below=1), "level=95 must lie between 0 and 1"),
        (lambda: check_number("amount", NAN), "amount=nan must be a number"),
        (lambda: check_number("lr", INF, above=0), "lr=inf must be a finite number above 0"),
        (lambda: check_number("lr", 10**400, above=0), f"lr={10**400} must be a number above 0"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            call()


@pytest.mark.parametrize(
    "wrong", [{"timeout": NAN}, {"timeout": 0}, {"retries": NAN}, {"pause": -1}, {"longest_pause": NAN}]
)
def test_settings_of_remote_reads_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))}=.* (must be|at least)"):
        RemoteSettings(**wrong)
