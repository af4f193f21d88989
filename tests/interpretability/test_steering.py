"""Steering finds what moved vectors find; a feature moves with its own steering, and the others say how much by chance."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mmmono.core.errors import NonFiniteError
from mmmono.interpretability.steering import SteeredRetrieval
from mmmono.reporting.contact_sheets import WIDTH
from mmmono.reporting.steering_sheets import SteeredRow, SteeringCard, steering_sheet

TEXTS, IMAGES, FEATURES, DIM, K = 12, 80, 16, 24, 5


@pytest.fixture(scope="module")
def parts() -> dict[str, Tensor]:
    """Concepts of unit length, each in some of the images; a part of every vector is no concept's."""
    rng = np.random.default_rng(0)
    atoms = np.linalg.qr(rng.standard_normal((DIM, FEATURES)))[0].T
    codes = {n: rng.gamma(2, 0.5, (n, FEATURES)) * (rng.random((n, FEATURES)) < 0.2) for n in (TEXTS, IMAGES)}
    rest = {n: 0.1 * rng.standard_normal((n, DIM)) for n in (TEXTS, IMAGES)}
    made = {"text_codes": codes[TEXTS], "image_codes": codes[IMAGES], "atoms": atoms}
    made |= {"text": codes[TEXTS] @ atoms + rest[TEXTS], "image": codes[IMAGES] @ atoms + rest[IMAGES]}
    return {name: torch.from_numpy(value) for name, value in made.items()}


@pytest.fixture(scope="module")
def steering(parts: dict[str, Tensor]) -> SteeredRetrieval:
    return SteeredRetrieval(parts["text"], parts["text_codes"], parts["image"], parts["image_codes"], parts["atoms"], K)


@pytest.mark.parametrize(("how", "strength"), [("set", 0.0), ("set", 3.0), ("scale", 2.5)])
def test_images_found_are_those_nearest_to_the_moved_vector(
    parts: dict[str, Tensor], steering: SteeredRetrieval, how: str, strength: float
) -> None:
    text, codes, image, atoms = (parts[name].numpy() for name in ("text", "text_codes", "image", "atoms"))
    unit = image / np.linalg.norm(image, axis=1, keepdims=True)
    for feature in (0, 7):
        new = codes[:, feature] * strength if how == "scale" else strength * float(steering.reference[feature])
        moved = text + (new - codes[:, feature])[:, None] * atoms[feature]
        expected = np.argsort(-moved @ unit.T, axis=1)[:, :K]
        assert steering.found(feature, strength, how).tolist() == expected.tolist()  # type: ignore[arg-type]
    assert steering.found().tolist() == np.argsort(-text @ unit.T, axis=1)[:, :K].tolist()


def test_the_reference_is_the_mean_of_the_largest_activations(
    parts: dict[str, Tensor], steering: SteeredRetrieval
) -> None:
    codes = parts["image_codes"].numpy()
    np.testing.assert_allclose(steering.reference.numpy(), np.sort(codes, axis=0)[-K:].mean(0))
    signed = SteeredRetrieval(
        parts["text_codes"], parts["text_codes"], -parts["image_codes"], -parts["image_codes"], None, K
    )
    np.testing.assert_allclose(signed.reference.numpy(), -steering.reference.numpy())


def test_a_feature_moves_with_its_own_steering_and_what_is_found_changes_step_by_step(
    parts: dict[str, Tensor], steering: SteeredRetrieval
) -> None:
    calls = []
    features = list(range(FEATURES))
    weak, strong, huge = steering.steered(features, [1.0, 4.0, 1000.0], advance=lambda: calls.append(1))
    assert len(calls) == 3 * FEATURES
    assert (weak.moves.mean(0) > -0.02).all()
    assert (strong.moves.mean() > weak.moves.mean() + 0.1).item()
    assert strong.controls.mean().abs() < 0.1 < strong.moves.mean()
    assert (weak.stays.mean() > strong.stays.mean()).item()
    assert ((weak.scores() >= 0) & (weak.scores() <= 1)).all()
    # However strong, a text finds at best the images that activate the feature most.
    codes = parts["image_codes"].numpy()
    for feature in (0, 7):
        most = codes[steering.found(feature, 1000.0).numpy(), feature].mean(1)
        before = codes[steering.found().numpy(), feature].mean(1)
        reference = np.sort(codes[:, feature])[-K:].mean()
        np.testing.assert_allclose(huge.moves[:, feature].numpy(), (most - before) / reference)
        assert (most <= reference + 1e-12).all()


def test_controls_and_stays_are_those_of_one_line(parts: dict[str, Tensor], steering: SteeredRetrieval) -> None:
    features = [2, 5, 9]
    [found] = steering.steered(features, [2.0])
    codes = parts["image_codes"].numpy()
    before, mean = codes[steering.found().numpy()].mean(1), codes.mean(0)
    after = {feature: codes[steering.found(feature, 2.0).numpy()].mean(1) for feature in features}
    control = ((after[5] + after[9]) / 2 - before)[:, 2] / float(steering.reference[2])
    np.testing.assert_allclose(found.controls[:, 0].numpy(), control)
    a, b = (np.delete(side - mean, 2, axis=1) for side in (before, after[2]))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(found.stays[:, 0].numpy(), cosine)
    expected = max(0, found.moves[:, 0].mean().item()) * max(0, cosine.mean())
    assert found.scores()[0].item() == pytest.approx(expected)


def test_codes_are_compared_with_codes_without_a_decoder(parts: dict[str, Tensor]) -> None:
    text, image = parts["text_codes"], parts["image_codes"]
    steering = SteeredRetrieval(text, text, image, image, None, K)
    moved = text.clone()
    moved[:, 3] = 2 * steering.reference[3]
    expected = (torch.nn.functional.normalize(moved) @ torch.nn.functional.normalize(image).T).topk(K).indices
    assert torch.equal(steering.found(3, 2.0), expected)


def test_what_cannot_be_steered_is_named(parts: dict[str, Tensor], steering: SteeredRetrieval) -> None:
    text, image = parts["text_codes"], parts["image_codes"]
    with pytest.raises(ValueError, match="k=81 images are to be found among 80"):
        SteeredRetrieval(text, text, image, image, None, 81)
    with pytest.raises(ValueError, match="16 features but 3 atoms"):
        SteeredRetrieval(text, text, image, image, torch.zeros(3, FEATURES, dtype=torch.float64), K)
    with pytest.raises(NonFiniteError, match="image 0"):
        SteeredRetrieval(text, text, image.clone().fill_(torch.nan), image, None, K)
    with pytest.raises(ValueError, match="1 features to steer"):
        list(steering.steered([3], [1.0]))
    with pytest.raises(ValueError, match="how=push is none of set, scale"):
        list(steering.steered([3, 4], [1.0], how="push"))  # type: ignore[arg-type]
    silent = image.clone()
    silent[:, 4] = 0
    with pytest.raises(ValueError, match="no image activates feature 4"):
        list(SteeredRetrieval(text, text, silent, silent, None, K).steered([3, 4], [1.0]))


def test_a_sheet_has_a_row_for_each_strength_and_fits_the_page() -> None:
    images = [(Image.new("RGB", (30, 20), "red"), 0.5)] * 4
    rows = [SteeredRow("most active", images[:2]), SteeredRow("as it is", images), SteeredRow("set to 2", images)]
    figure = steering_sheet(SteeringCard("sae", 7, "ImgD", 0.8, "a very long text " * 20, rows))
    assert figure.get_figwidth() == WIDTH
    assert len(figure.axes) == 2 + 4 + 4
    texts = [text.get_text() for text in figure.texts]
    assert texts[0].startswith("sae feature 7: ImgD, MDS 0.80; text: “a very long")
    assert len(texts[0]) < 120
    assert {"most active", "as it is", "set to 2", "0.50"} <= set(texts)
