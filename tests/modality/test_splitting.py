"""What became of known concepts, and which latents of two autoencoders belong together."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from mmmono.modality.side_matching import match_sides
from mmmono.modality.splitting import concept_splitting

KIND = torch.tensor([0, 0, 1, 2, 2, 2])


def test_each_fate_of_a_concept() -> None:
    image = torch.tensor(
        [[0.9, 0.0, 0.0, 0.0], [0.0, 0.8, 0.0, 0.0], [0.1, 0.1, 0.1, 0.1], [0.0, 0.0, 0.9, 0.2], [0.0, 0.0, 0.2, 0.7],
         [0.3, 0.0, 0.0, 0.4]]
    )  # fmt: skip
    text = torch.tensor(
        [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.8, 0.0, 0.0, 0.0], [0.0, 0.0, 0.6, 0.1], [0.0, 0.6, 0.1, 0.1],
         [0.0, 0.0, 0.0, 0.9]]
    )  # fmt: skip
    found = concept_splitting(image, text, KIND)
    # Concept 3 has latent 2 on both sides, concept 4 latents 3 and 1, concept 5 is not found in images.
    assert (found.one, found.split, found.missed) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    # Latent 0 means concept 0 in images and 2 in texts, latent 1 concept 1 in images and 4 in texts: all three are merged.
    assert found.merged == 1
    text[2, 0], text[2, 3] = 0.0, 0.95
    assert concept_splitting(image, text, KIND).merged == pytest.approx(
        2 / 3
    )  # concept 0 alone has its latent for itself


def test_nothing_is_merged_where_no_concept_of_one_modality_is_found() -> None:
    zeros = torch.zeros(6, 4)
    found = concept_splitting(zeros, zeros, KIND)
    assert found.missed == 1
    assert np.isnan(found.merged)


def test_sides_are_matched_by_the_best_of_all_assignments() -> None:
    rng = np.random.default_rng(0)
    image = np.maximum(rng.standard_normal((300, 6)), 0)
    text = np.maximum(image[:, [3, 0, 5, 1, 2, 4]] + rng.standard_normal((300, 6)), 0)
    image[:, 4] = text[:, 1] = 0  # silent
    blocks = [(torch.tensor(image[rows]), torch.tensor(text[rows])) for rows in (slice(0, 100), slice(100, None))]
    partners, correlation = match_sides(blocks)
    with np.errstate(invalid="ignore"):
        expected = np.nan_to_num(np.corrcoef(image.T, text.T)[:6, 6:])
    live = [i for i in range(6) if i != 4]

    def total(order: tuple[int, ...]) -> float:
        return sum(expected[i, j] for i, j in zip(live, order, strict=True))

    best = max(permutations([j for j in range(6) if j != 1]), key=total)
    assert partners[live].tolist() == list(best)
    assert partners[4] == 1
    np.testing.assert_allclose(correlation[live], [expected[i, j] for i, j in zip(live, best, strict=True)], rtol=1e-9)
    assert correlation[4] == 0


@pytest.mark.parametrize(("seed", "silent"), [(0, (4, 9)), (1, (4, 9)), (11, (9, 4)), (13, (5, 5))])
def test_latents_without_a_match_do_not_change_places_with_the_last_bits_of_the_others(
    seed: int, silent: tuple[int, int]
) -> None:
    """As between two processes and one, whose sums are rounded differently."""
    torch.manual_seed(seed)
    sides = [torch.rand(300, 24, dtype=torch.float64) for _ in range(2)]
    sides = [side * (side >= side.topk(2, dim=1).values[:, -1:]) for side in sides]
    for side, count in zip(sides, silent, strict=True):
        side[:, torch.randperm(24)[:count]] = 0
    found = [match_sides([(sides[0] * (1 + 1e-7 * torch.rand(300, 24)), sides[1])])[0] for _ in range(20)]
    assert all(torch.equal(partners, found[0]) for partners in found)
    assert sorted(found[0].tolist()) == list(range(24))


def test_what_cannot_be_matched_is_refused() -> None:
    with pytest.raises(ValueError, match="3 latents of images cannot be matched with 2 of texts"):
        match_sides([(torch.rand(5, 3), torch.rand(5, 2))])
    with pytest.raises(ValueError, match="no activations"):
        match_sides([])
