"""Recovery scores where the right ones are known."""

import pytest
import torch

from mmmono.modality import Partition
from mmmono.modality.validation import mean_max_cosine, planted_recovery

KIND = torch.tensor([0, 0, 1, 1, 2, 2, 2])
TRUE = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.4, 0.5, 0.6])
NO_DEAD = torch.tensor([], dtype=torch.int64)


def test_perfect_features() -> None:
    """Seven features that are the concepts, in another order, and one that is nothing."""
    order = torch.tensor([3, 6, 0, 2, 5, 1, 4])
    correlations = torch.zeros(7, 8)
    correlations[torch.arange(7), order] = 1
    scores = torch.full((8,), torch.nan)
    scores[order] = TRUE
    classes = Partition(order[:2].sort()[0], order[2:4].sort()[0], order[4:].sort()[0], torch.tensor([7]))
    found = planted_recovery(correlations, KIND, TRUE, scores, classes, classes)
    assert (found.correlation, found.auroc_image, found.auroc_text) == (1, 1, 1)
    assert found.rank_correlation == pytest.approx(1)
    assert (found.accuracy_sigma, found.accuracy_null, found.false_discoveries) == (1, 1, 0)
    assert found.found == 7


def test_wrong_classes_and_false_discoveries() -> None:
    identity = torch.eye(7)
    swapped = Partition(torch.tensor([2, 3]), torch.tensor([0, 1]), torch.tensor([4, 5, 6]), NO_DEAD)
    eager = Partition(torch.tensor([0, 1, 5, 6]), torch.tensor([2, 3, 4]), NO_DEAD, NO_DEAD)
    found = planted_recovery(identity, KIND, TRUE, 1 - TRUE, swapped, eager)
    assert (found.auroc_image, found.auroc_text) == (0, 0)
    assert found.rank_correlation == pytest.approx(-1)
    assert found.accuracy_sigma == pytest.approx(3 / 7)
    # Of the seven that are said to lean, concept 5 leans nowhere.
    assert found.false_discoveries == pytest.approx(1 / 7)


def test_mean_max_cosine() -> None:
    atoms = torch.eye(3)
    assert mean_max_cosine(atoms, 5 * atoms[[2, 0, 1]]) == pytest.approx(1)
    assert mean_max_cosine(atoms, torch.tensor([[1.0, 1, 0]])) == pytest.approx(2 * 0.5**0.5 / 3)
