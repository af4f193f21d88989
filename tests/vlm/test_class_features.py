from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import erf
from timm.models import create_model
from torch import nn
from torch.nn import functional as F

from mmmono.vlm.class_features import (
    DISTANCE,
    SLOPE,
    TEMPERATURE,
    THRESHOLD,
    WEIGHT,
    Classifier,
    class_features,
    imagenet_descriptions,
    start_as_classifier,
)  # fmt: skip


@pytest.fixture
def classifier() -> Classifier:
    torch.manual_seed(0)
    weight = torch.eye(8, 24) + 0.01 * torch.randn(8, 24)
    return Classifier(weight, torch.zeros(8), F.normalize(torch.randn(8, 6) + 1, dim=1))


def test_descriptions_are_those_of_a_classifiers_rows() -> None:
    descriptions = imagenet_descriptions()
    assert len(descriptions) == 1000
    assert descriptions[0].startswith("tench, Tinca tinca: freshwater")
    assert descriptions[951].startswith("lemon: ")  # torchvision's and timm's index of the class
    assert create_model("tf_efficientnet_lite0", pretrained=False).num_classes == len(descriptions)


def test_a_certain_feature_gets_its_classs_name_and_an_uncertain_one_a_mixture(classifier: Classifier) -> None:
    certain = 1000 * torch.eye(8, 24)
    mean = classifier.names.mean(0)
    text = classifier.text_of(certain)
    torch.testing.assert_close(
        F.normalize(text - mean, dim=1), F.normalize(classifier.names - mean, dim=1), atol=1e-4, rtol=0
    )
    # ConSE's sum over classes, one at a time.
    image = torch.rand(1, 24)
    logits = (classifier.weight @ image[0]) / TEMPERATURE
    total = sum(float(p) * (name - mean) for p, name in zip(logits.softmax(0), classifier.names, strict=True))
    torch.testing.assert_close(F.normalize(classifier.text_of(image) - mean, dim=1)[0], F.normalize(total, dim=0))


def test_features_lie_along_classes_and_carry_their_text(classifier: Classifier) -> None:
    torch.manual_seed(0)
    level = 0.5
    image, text = class_features(classifier, torch.full((5, 24), level))(4000)  # equal outputs have no deviations
    assert (image.shape, text.shape) == ((4000, 24), (4000, 6))
    assert image.min() >= 0
    torch.testing.assert_close(text, classifier.text_of(image))
    above = (image[:, :8] - level).clamp_min(0)
    shown = (above > DISTANCE / 4).sum(1)
    assert set(shown.tolist()) <= {0, 1, 2, 3}
    alone = above[shown == 1].max(1).values
    assert 0.4 * DISTANCE < alone.median() < 1.6 * DISTANCE
    assert image.argmax(1).bincount(minlength=24)[:8].min() > 300  # each class is as likely


def test_noise_is_that_of_the_outputs(classifier: Classifier) -> None:
    torch.manual_seed(0)
    spread = torch.linspace(0, 0.5, 24)
    outputs = 20 + spread * torch.randn(500, 24)  # far from the cut at 0
    image, _ = class_features(classifier, outputs)(6000)
    others = image[:, 8:]  # channels of no class
    torch.testing.assert_close(others.std(0), spread[8:], atol=0.08, rtol=0.1)
    torch.testing.assert_close(others.mean(0), outputs.mean().expand(16), atol=0.15, rtol=0)


def test_a_head_that_starts_as_the_classifier_adds_up_the_names_of_likely_classes(classifier: Classifier) -> None:
    first, second, text_head = nn.Linear(24, 8), nn.Linear(8, 5, bias=False), nn.Linear(6, 5, bias=False)
    drawn = second.weight.std().item()
    start_as_classifier(classifier, (first, second), text_head, image_scale=0.4)
    assert second.weight.std().item() == pytest.approx(WEIGHT * drawn, rel=1e-5)
    image = 10 * torch.rand(20, 24)
    with torch.no_grad():
        found = second(F.gelu(first(image / 0.4))).double().numpy()
    x, w, b, names = (t.double().numpy() for t in (image, classifier.weight, classifier.bias, classifier.names))
    active = SLOPE * (x @ w.T + b - THRESHOLD)
    active = active * (1 + erf(active / np.sqrt(2))) / 2  # GELU
    expected = active @ (names - names.mean(0)) @ text_head.weight.detach().double().numpy().T
    unit = [y / np.linalg.norm(y, axis=1, keepdims=True) for y in (found, expected)]
    np.testing.assert_allclose(*unit, atol=1e-4)


def test_hidden_units_beyond_the_classes_stay_as_they_were_drawn(classifier: Classifier) -> None:
    first, second = nn.Linear(24, 11), nn.Linear(11, 5, bias=False)
    before = first.weight[8:].clone(), first.bias[8:].clone(), second.weight[:, 8:].clone()
    start_as_classifier(classifier, (first, second), nn.Linear(6, 5, bias=False), image_scale=1.0)
    after = first.weight[8:], first.bias[8:], second.weight[:, 8:]
    assert all(old.equal(new) for old, new in zip(before, after, strict=True))
    torch.testing.assert_close(first.bias[:8], torch.full((8,), -SLOPE * THRESHOLD))
