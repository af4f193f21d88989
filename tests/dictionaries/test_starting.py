import pytest
import torch
from torch.nn import functional as F

from mmmono.core.errors import DictionaryError
from mmmono.dictionaries import NCLHead, TopKSAE
from mmmono.dictionaries.autoencoder import SparseAutoencoder
from mmmono.dictionaries.gated import GatedSAE
from mmmono.dictionaries.jumprelu import JumpReLUSAE
from mmmono.dictionaries.l1_sae import L1SAE
from mmmono.dictionaries.matched_saes import MatchedSAEs
from mmmono.dictionaries.matching_pursuit import MatchingPursuitSAE
from mmmono.dictionaries.pretrained import PretrainedSAE
from mmmono.dictionaries.sparc import SparcSAE
from mmmono.dictionaries.starting import start_from

D, N = 6, 10


@pytest.fixture
def z() -> torch.Tensor:
    torch.manual_seed(1)
    return F.normalize(torch.randn(50, D), dim=1)


def trained(sae: SparseAutoencoder) -> SparseAutoencoder:
    """An autoencoder that is nowhere as it was made."""
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.3 * torch.rand_like(parameter))
    sae.normalize_decoder_()
    return sae.eval()


def test_the_same_kind_starts_as_the_other_ended(z: torch.Tensor) -> None:
    other = trained(TopKSAE(D, N, k=3))
    started = TopKSAE(D, N, k=3)
    start_from(started, other)
    for name, value in other.state_dict().items():
        torch.testing.assert_close(started.state_dict()[name], value, atol=0, rtol=0)


def test_another_kind_takes_what_it_has(z: torch.Tensor) -> None:
    other = trained(JumpReLUSAE(D, N, threshold=0.02, encoder_bias=True))
    started = JumpReLUSAE(D, N, encoder_bias=True)
    start_from(started, other)
    torch.testing.assert_close(started.encode(z, "image"), other.encode(z, "image"))
    plain = L1SAE(D, N, encoder_bias=True)
    start_from(plain, other)
    pre = F.linear(z - other.b_pre, other.W_enc, other.b_enc)
    torch.testing.assert_close(plain.encode(z, "image"), pre.relu())


def test_one_center_becomes_two_and_two_become_their_mean() -> None:
    other = trained(TopKSAE(D, N, k=3))
    two = TopKSAE(D, N, k=3, center="per_modality")
    start_from(two, other)
    torch.testing.assert_close(two.b_pre, other.b_pre.expand(2, D))
    two.b_pre.data[1] += 1
    one = TopKSAE(D, N, k=3)
    start_from(one, two)
    torch.testing.assert_close(one.b_pre, other.b_pre + 0.5)


@pytest.mark.parametrize(
    ("activation", "kind"),
    [("relu", L1SAE), ("threshold", JumpReLUSAE), ("gated", GatedSAE), ("matching_pursuit", MatchingPursuitSAE)],
)
def test_another_library_with_atoms_of_any_length(
    activation: str, kind: type[SparseAutoencoder], z: torch.Tensor
) -> None:
    torch.manual_seed(2)
    pursuit = activation == "matching_pursuit"
    foreign = PretrainedSAE(D, N, activation=activation, k=4 if pursuit else None)
    for name, buffer in foreign.named_buffers():
        buffer.copy_(0.3 * torch.rand_like(buffer) if name == "threshold" else torch.randn_like(buffer))
    if pursuit:  # the library's own have unit length, and one center
        foreign.W_dec.copy_(F.normalize(foreign.W_dec, dim=1))
        foreign.shift.copy_(foreign.b_dec)
    started = MatchingPursuitSAE(D, N, k=4) if pursuit else kind(D, N, encoder_bias=True)
    start_from(started, foreign)
    torch.testing.assert_close(torch.linalg.vector_norm(started.W_dec, dim=1), torch.ones(N))
    expected = foreign.decode(foreign.encode(z, "text"), "text")
    torch.testing.assert_close(started.decode(started.encode(z, "text"), "text"), expected, atol=1e-4, rtol=1e-4)


def test_both_sides_of_a_two_sided_one_start_as_the_other_one(z: torch.Tensor) -> None:
    other = trained(TopKSAE(D, N, k=3))
    for kind in (SparcSAE, MatchedSAEs):
        started = kind(D, N, k=3)
        start_from(started, other)
        for modality in ("image", "text"):
            torch.testing.assert_close(started.encode(z, modality), other.encode(z, modality))
        with pytest.raises(DictionaryError, match="it has weights for each modality"):
            start_from(TopKSAE(D, N, k=3), started)
        again = kind(D, N, k=3)
        start_from(again, trained(started))
        torch.testing.assert_close(again.encode(z, "text"), started.encode(z, "text"))


def test_a_pruned_latent_of_another_library_starts_at_zero() -> None:
    foreign = PretrainedSAE(D, N, activation="relu")
    foreign.W_enc.copy_(torch.randn(N, D))
    foreign.W_dec.copy_(torch.randn(N, D))
    foreign.W_dec[0] = 0
    started = L1SAE(D, N, encoder_bias=True)
    start_from(started, foreign)
    assert all(bool(parameter.isfinite().all()) for parameter in started.parameters())
    assert float(started.W_dec[0].abs().sum()) == 0


@pytest.mark.parametrize("kind", [TopKSAE, L1SAE])
def test_training_goes_on_beside_a_pruned_latent(kind: type[SparseAutoencoder], z: torch.Tensor) -> None:
    foreign = PretrainedSAE(D, N, activation="relu")
    foreign.W_enc.copy_(torch.randn(N, D))
    foreign.W_dec.copy_(torch.randn(N, D))
    foreign.W_dec[0] = 0
    started = kind(D, N, encoder_bias=True, **({"k": N} if kind is TopKSAE else {}))
    start_from(started, foreign)
    optimizer = torch.optim.Adam(started.parameters(), lr=1e-2)
    for _ in range(2):
        started(z, z).loss.backward()
        started.project_decoder_gradient()
        optimizer.step()
        started.normalize_decoder_()
    assert all(bool(parameter.isfinite().all()) for parameter in started.parameters())
    torch.testing.assert_close(torch.linalg.vector_norm(started.W_dec[1:], dim=1), torch.ones(N - 1))


def test_what_does_not_fit_is_an_error_that_names_the_setting() -> None:
    with pytest.raises(DictionaryError, match=r"it has 10 latents .* not 12 for 6: set expansion=1\.66"):
        start_from(TopKSAE(D, 12, k=3), TopKSAE(D, N, k=3))
    with pytest.raises(DictionaryError, match="encoder bias: set encoder_bias=true"):
        start_from(TopKSAE(D, N, k=3), trained(L1SAE(D, N, encoder_bias=True)))
    with pytest.raises(DictionaryError, match="not its decoder: set encoder=transposed"):
        start_from(TopKSAE(D, N, k=3, encoder="tied"), trained(TopKSAE(D, N, k=3)))
    with pytest.raises(DictionaryError, match="no encoder and decoder matrices"):
        start_from(TopKSAE(D, N, k=3), NCLHead(D, N))
    with pytest.raises(DictionaryError, match="normalizes each embedding"):
        start_from(TopKSAE(D, N, k=3), PretrainedSAE(D, N, activation="relu", input_norm="layer_norm"))
