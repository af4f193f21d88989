"""How many groups a question needs: the plan is carried out on new data."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mmmono.modality import (
    class_certainty,
    dominance_scores,
    groups_for_border,
    groups_for_half_width,
    groups_for_power,
    partition_by_margin,
    resample_dominance,
    score_intervals,
    sign_flip_p_values,
)
from mmmono.modality.planning import Aims, plan_rows
from tests.modality.draws import dense, latents, repeated

CLIP_PAIRS = Path(__file__).parents[3] / "shared/data/clip_pairs/coco_clip_vitb16_500.npy"


@pytest.mark.parametrize("times", [1, 3])
def test_as_many_groups_as_planned_give_the_half_width(times: int) -> None:
    rng = np.random.default_rng(0)
    pilot, groups = repeated(dense(rng, 200, 100, 0.6), times)
    needed = int(groups_for_half_width(dominance_scores([pilot], groups=groups), 0.02).median())
    carried, groups = repeated(dense(rng, needed, 100, 0.6), times)
    low, high = score_intervals(dominance_scores([carried], groups=groups))
    assert ((high - low) / 2).median() == pytest.approx(0.02, rel=0.05)


def test_features_that_a_small_pilot_saw_won_by_images_alone_still_need_pairs() -> None:
    pilot = dominance_scores([latents(np.random.default_rng(1), 300, 50, 1.0, 0.1)])
    assert (pilot.standard_error.nan_to_num(0) == 0).all()
    needed = groups_for_half_width(pilot, 0.01)
    assert (needed > 10_000).all()


@pytest.mark.parametrize("difference", [0.04, -0.04])
def test_as_many_groups_as_planned_have_the_power(difference: float) -> None:
    rng = np.random.default_rng(2)
    pilot, groups = repeated(dense(rng, 300, 200, 0.5), 2)
    needed = int(groups_for_power(dominance_scores([pilot], groups=groups), difference=0.04).median())
    carried, groups = repeated(dense(rng, needed, 1000, 0.5 + difference), 2)
    p, _ = sign_flip_p_values(dominance_scores([carried], groups=groups))
    assert (p <= 0.05).double().mean() == pytest.approx(0.8, abs=0.05)


def test_as_many_groups_as_planned_confirm_a_class() -> None:
    rng, groups = np.random.default_rng(3), 100
    for_class = lambda s, live: partition_by_margin(s, 0.1, live)  # noqa: E731
    everything = torch.ones(400, dtype=torch.bool)

    def certain(pairs: int):  # type: ignore[no-untyped-def]
        pair = dense(rng, pairs, 400, 0.65)
        return class_certainty(
            dominance_scores([pair]), resample_dominance([pair], 1, 100, 1).bootstrap, for_class, everything
        )

    distance = torch.full((400,), 0.05).double()
    needed = int(groups_for_border(groups, distance, certain(groups).border_error).median())
    assert (certain(needed).border_p_value <= 0.05).double().mean() == pytest.approx(0.8, abs=0.06)
    assert groups_for_border(groups, -distance, distance).isnan().all()


def test_as_many_groups_as_planned_confirm_a_few_of_many_features() -> None:
    """At a false discovery rate the level of a test is small if few are found: .8 were planned for, and .4 confirmed."""
    rng, groups, few = np.random.default_rng(5), 100, torch.arange(400) < 40

    def certain(pairs: int):  # type: ignore[no-untyped-def]
        sides = zip(dense(rng, pairs, 40, 0.65), dense(rng, pairs, 360, 0.5), strict=True)
        pair = tuple(torch.cat(of, 1) for of in sides)
        scores = dominance_scores([pair])
        resamples, everything = resample_dominance([pair], 1, 100, 1).bootstrap, torch.ones(400, dtype=torch.bool)
        return scores, class_certainty(scores, resamples, lambda s, of: partition_by_margin(s, 0.1, of), everything)

    scores, pilot = certain(groups)
    distance = torch.where(few, 0.05, torch.nan).double()
    plan = list(plan_rows(scores, torch.ones(400, dtype=torch.bool), distance, pilot.border_error, Aims()))
    assert plan[2]["asked"] == 40
    confirmed = certain(int(plan[2]["groups_median"]))[1].confirmed(0.05)
    assert confirmed[few].double().mean() > 0.7
    assert confirmed[~few].sum() <= 3


def test_fewer_groups_than_make_a_feature_live_are_never_enough() -> None:
    """R(d) = .9 with hardly an error in 80 pairs, a half of which is informative: four groups were said to be enough."""
    image = torch.zeros(80, 3)
    image[::2] = 0.9 + 0.001 * torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    text = torch.where(image > 0, 1 - image, 0)
    scores = dominance_scores([(image, text)])
    distance, error = torch.full((3,), 0.1).double(), torch.full((3,), 0.001).double()
    everything = torch.ones(3, dtype=torch.bool)
    border = list(plan_rows(scores, everything, distance, error, Aims()))[2]
    assert border["groups_median"] == 2  # one of them informative
    border = list(plan_rows(scores, everything, distance, error, Aims(), least=10))[2]
    assert (border["groups_median"], border["groups_90"], border["informative_median"]) == (20, 20, 10)


def test_a_latent_of_an_sae_needs_8100_informative_pairs() -> None:
    """Ratios with a standard deviation of .46 in a tenth of the pairs: R(d) ± .01."""
    rng = np.random.default_rng(4)
    share = 4 * 0.46**2  # of informative pairs with a ratio of 0 or 1, the others have ½
    image, text = latents(rng, 20_000, 20, 0.5, 0.1)
    active = (image + text) > 0
    middle = torch.from_numpy(rng.random(image.shape) > share) & active
    image, text = (side.masked_fill(middle, 0.5) for side in (image, text))
    scores = dominance_scores([(image, text)])
    everything = torch.ones(20, dtype=torch.bool)
    rows = list(plan_rows(scores, everything, torch.full((20,), torch.nan).double(), torch.ones(20).double(), Aims()))
    assert [row["aim"] for row in rows] == ["half_width", "difference", "border"]
    assert rows[0]["informative_median"] == pytest.approx(8100, rel=0.03)
    assert rows[0]["groups_median"] == pytest.approx(81_000, rel=0.05)
    assert rows[0]["groups_median"] < rows[0]["groups_90"]
    assert rows[2]["asked"] == 0
    assert np.isnan(rows[2]["groups_median"])  # type: ignore[arg-type]


@pytest.mark.skipif(not CLIP_PAIRS.exists(), reason=f"needs 500 real CLIP pairs at {CLIP_PAIRS}")
def test_real_clip_needs_2500_pairs() -> None:
    image, text = map(torch.from_numpy, np.load(CLIP_PAIRS))
    needed = groups_for_half_width(dominance_scores([(image, text)]), 0.01)
    assert needed.median().item() == pytest.approx(2500, rel=0.05)


def test_what_cannot_be_planned_is_refused() -> None:
    scores = dominance_scores([dense(np.random.default_rng(0), 20, 2, 0.5)])
    with pytest.raises(ValueError, match=r"half_width=0 must be above 0"):
        groups_for_half_width(scores, 0)
    with pytest.raises(ValueError, match=r"difference=-0.1 must be above 0"):
        groups_for_power(scores, -0.1)
