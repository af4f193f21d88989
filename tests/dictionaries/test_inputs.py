"""What dictionaries take: embeddings of any floating type, of their width; all else is refused in words."""

import numpy as np
import pytest
import torch

from mmmono.dictionaries import NCLHead, SparseAutoencoder, TopKSAE
from mmmono.dictionaries.base import Dictionary
from mmmono.dictionaries.jumprelu import JumpReLUSAE
from mmmono.dictionaries.linear import CenteredEmbeddings, LinearMap
from mmmono.dictionaries.pretrained import PretrainedSAE
from mmmono.dictionaries.sparc import SparcSAE

DIM = 16
KINDS = [
    TopKSAE(DIM, k=4), TopKSAE(DIM, k=4, center="per_modality"), JumpReLUSAE(DIM), SparcSAE(DIM, k=4), NCLHead(DIM, 12),
    LinearMap(DIM, 12), CenteredEmbeddings(DIM), PretrainedSAE(DIM, 12, activation="relu"),
]  # fmt: skip


@pytest.fixture
def embeddings() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(5, DIM, generator=torch.Generator().manual_seed(0)), dim=1)


@pytest.mark.parametrize("dictionary", KINDS, ids=lambda d: type(d).__name__)
@torch.no_grad()
def test_embeddings_of_any_type(dictionary: Dictionary, embeddings: torch.Tensor) -> None:
    exact = embeddings.half()  # each type has these numbers
    expected = dictionary.encode(exact.float(), "image")
    for given in (exact, exact.double()):
        assert torch.equal(dictionary.encode(given, "image"), expected)
        if dictionary.decodes:
            codes = expected.half()
            decoded = dictionary.decode(codes.to(given.dtype), "image")
            assert torch.equal(decoded, dictionary.decode(codes.float(), "image"))


@pytest.mark.parametrize("dictionary", KINDS, ids=lambda d: type(d).__name__)
def test_what_does_not_fit_is_refused(dictionary: Dictionary, embeddings: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"embeddings \[batch, 16\] expected by this \w+ dictionary, got \(5, 9\)"):
        dictionary.encode(embeddings[:, :9], "image")
    with pytest.raises(ValueError, match=r"got \(5, 1\)"):  # which would be repeated for each dimension
        dictionary.encode(embeddings[:, :1], "image")
    with pytest.raises(TypeError, match=r"embeddings: a torch\.Tensor expected, got numpy\.ndarray"):
        dictionary.encode(np.ones((5, DIM), np.float32), "image")  # type: ignore[arg-type]
    if dictionary.decodes:
        with pytest.raises(ValueError, match=r"codes \[batch, \d+\] expected by this \w+ dictionary, got \(5, 3\)"):
            dictionary.decode(embeddings[:, :3], "image")


AUTOENCODERS = [dictionary for dictionary in KINDS if isinstance(dictionary, SparseAutoencoder)]


@pytest.mark.parametrize("dictionary", AUTOENCODERS, ids=lambda d: type(d).__name__)
def test_a_batch_is_of_the_same_pairs_on_both_sides(dictionary: SparseAutoencoder, embeddings: torch.Tensor) -> None:
    """Of five images and three texts SPARC and others would take the fourth image for a text."""
    output = dictionary(embeddings, embeddings)
    assert torch.isfinite(output.loss)
    for image, text in (
        (embeddings, embeddings[:3]), (embeddings, embeddings[:1]), (embeddings[:, :9], embeddings[:, :9]),
        (embeddings[None], embeddings[None]), (embeddings[0], embeddings[0]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"image and text \[pairs, 16\] expected by this \w+ dictionary, got"):
            dictionary(image, text)
    with pytest.raises(TypeError, match=r"text: a torch\.Tensor expected, got numpy\.ndarray"):
        dictionary(embeddings, embeddings.numpy())
