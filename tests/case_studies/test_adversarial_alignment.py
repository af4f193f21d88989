"""The attack and the defense: pixels move, through the chosen features alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmmono.case_studies.adversarial.alignment import Alignment, align
from mmmono.core.errors import ConfigError, ModelError
from mmmono.dictionaries import NCLHead, TopKSAE
from tests.tiny_clip import tiny_clip


def pool(pixels: Tensor) -> Tensor:
    """Twelve features: the four quarters' means of each color."""
    return torch.nn.functional.adaptive_avg_pool2d(pixels, 2).flatten(1)


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(0)
    return torch.randint(0, 256, (3, 3, 8, 8)).float() / 255


def test_gradients_reach_the_pixels_only_through_the_chosen_features(images: Tensor) -> None:
    """Feature 0 is the first color's upper left quarter: nothing else moves."""
    moved = align(images, pool(images.flip(0)), pool, Alignment(5, 0.02), torch.tensor([0])).pixels
    changed = moved != images
    assert changed[:, 0, :4, :4].any()
    changed[:, 0, :4, :4] = False
    assert not changed.any()


def test_targets_of_other_features_do_not_matter(images: Tensor) -> None:
    target = pool(images.flip(0))
    chosen = torch.tensor([1, 5, 7])
    other = torch.randn_like(target)
    other[:, chosen] = target[:, chosen]
    plan = Alignment(4, 0.02)
    first, second = (align(images, t, pool, plan, chosen) for t in (target, other))
    assert torch.equal(first.pixels, second.pixels)
    assert torch.equal(first.distances, second.distances)


def test_distances_are_those_of_the_equation_and_fall(images: Tensor) -> None:
    target, chosen = pool(images.flip(0)), torch.tensor([2, 3, 4])
    moved = align(images, target, pool, Alignment(30, 0.01), chosen)
    start, end = (((pool(x) - target)[:, chosen] ** 2).sum(1).sqrt() for x in (images, moved.pixels))
    torch.testing.assert_close(moved.distances[:, 0], start)
    torch.testing.assert_close(moved.distances[:, -1], end)
    assert moved.distances.shape == (3, 31)
    assert (end[start > 0.05] < 0.5 * start[start > 0.05]).all()


def test_a_batch_gives_what_its_images_give_alone(images: Tensor) -> None:
    target = pool(images.flip(0))
    plan = Alignment(6, 0.02, epsilon=0.05)
    together = align(images, target, pool, plan)
    for i in range(3):
        alone = align(images[i : i + 1], target[i : i + 1], pool, plan)
        assert torch.equal(alone.pixels[0], together.pixels[i])


@settings(max_examples=25, deadline=None)
@given(epsilon=st.floats(0.001, 1), lr=st.floats(0.001, 1), seed=st.integers(0, 99))
def test_images_stay_images_within_the_limit(epsilon: float, lr: float, seed: int) -> None:
    start = torch.randint(0, 256, (2, 3, 4, 4), generator=torch.Generator().manual_seed(seed)).float() / 255
    moved = align(start, pool(1 - start), pool, Alignment(3, lr, epsilon)).pixels
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert torch.equal((moved * 255).round() / 255, moved)
    assert ((moved - start).abs() <= epsilon + 1e-5).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["raw", "sae", "ncl"])
def test_through_an_encoder_and_a_dictionary(kind: str) -> None:
    torch.manual_seed(0)
    encoder = tiny_clip()
    dictionary = {"raw": None, "sae": TopKSAE(encoder.dim, 32, k=8), "ncl": NCLHead(encoder.dim, 32)}[kind]

    def see(pixels: Tensor) -> Tensor:
        z = torch.nn.functional.normalize(encoder.encode_pixels(pixels), dim=1)
        return z if dictionary is None else dictionary.encode(z, "image")

    start = torch.randint(0, 256, (2, 3, 32, 32)).float() / 255
    with torch.no_grad():
        target = see(1 - start)
    moved = align(start, target, see, Alignment(8, 0.02))
    assert (moved.distances[:, -1] < moved.distances[:, 0]).all()


def test_encoders_without_gradients_are_refused(images: Tensor) -> None:
    with pytest.raises(ModelError, match="no gradient to the pixels"):
        align(images, pool(images), lambda x: pool(x.detach()), Alignment(1, 0.1))
    with pytest.raises(ModelError, match="not finite"):
        align(images, pool(images), lambda x: pool(x) * float("inf"), Alignment(1, 0.1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [((0, 0.1), "steps=0"), ((1, 0.0), "lr=0.0"), ((1, 0.1, 0.0), "epsilon=0.0"), ((1, 0.1, 8.0), "epsilon=8.0")],
)
def test_impossible_plans(settings: tuple[float, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Alignment(*settings)  # type: ignore[arg-type]


def test_an_empty_class_cannot_be_aligned(images: Tensor) -> None:
    with pytest.raises(ConfigError, match="no feature is chosen"):
        align(images, pool(images), pool, Alignment(1, 0.1), torch.empty(0, dtype=torch.long))
