"""Objectives for pairs: each is what its formula says, and does what it is made for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmmono.core.errors import DictionaryError
from mmmono.dictionaries import Dictionary, SAEModule, TopKSAE
from mmmono.dictionaries.group_sparse import GroupSparseSAE
from mmmono.dictionaries.infonce import InfoNCESAE
from mmmono.dictionaries.iso_energy import IsoEnergySAE
from mmmono.dictionaries.matched_saes import MatchedSAEs
from mmmono.dictionaries.saelens import export_to_saelens
from mmmono.dictionaries.sparc import SparcSAE
from mmmono.dictionaries.sparse import encode_at, topk
from mmmono.features.retrieval import recall_at_k
from mmmono.features.synthetic import SyntheticPairs, SyntheticParameters, synthesize
from mmmono.modality.agreement import feature_correlations
from mmmono.modality.side_matching import match_sides
from mmmono.modality.splitting import concept_splitting

D, N, K, PAIRS = 8, 16, 3, 40


def pairs(seed: int = 1, count: int = PAIRS) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image, text = F.normalize(torch.randn(2, count, D, generator=generator), dim=2)
    return image, text


def made(kind: Any, **settings: Any) -> Any:
    torch.manual_seed(0)
    sae = kind(D, N, k=K, encoder_bias=True, center="per_modality", **settings)
    with torch.no_grad():
        for p in sae.parameters():
            p.add_(torch.randn_like(p), alpha=0.05)
    return sae


def top(activations: np.ndarray[Any, Any], k: int = K) -> np.ndarray[Any, Any]:
    """The k largest of each row, if positive."""
    smallest = np.sort(activations, axis=1)[:, -k][:, None]
    return np.where(activations >= smallest, np.maximum(activations, 0), 0)


def arrays(sae: Any, *more: torch.Tensor) -> list[np.ndarray[Any, Any]]:
    return [x.detach().numpy() for x in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_pre, *more)]


def codes_of(sae: Any, image: torch.Tensor, text: torch.Tensor) -> list[np.ndarray[Any, Any]]:
    encoder, bias, _, shift, *sides = arrays(sae, image, text)
    return [top((z - b) @ encoder.T + bias) for z, b in zip(sides, shift, strict=True)]


def test_iso_energy_is_the_mean_cosine_of_a_pairs_codes() -> None:
    sae, (image, text) = made(IsoEnergySAE, coefficient=0.4), pairs()
    z, w = codes_of(sae, image, text)
    cosines = (z * w).sum(1) / np.maximum(np.linalg.norm(z, axis=1) * np.linalg.norm(w, axis=1), 1e-12)
    assert float(sae(image, text).penalty.detach()) == pytest.approx(-0.4 * cosines.mean(), rel=1e-5)


def test_group_sparsity_is_the_norm_of_each_latents_two_codes() -> None:
    sae, (image, text) = made(GroupSparseSAE, coefficient=0.4, mask=0.0), pairs()
    z, w = codes_of(sae, image, text)
    output = sae(image, text)
    assert float(output.penalty.detach()) == pytest.approx(0.4 * np.sqrt(z**2 + w**2).sum(1).mean(), rel=1e-5)
    output.penalty.backward()  # also where both codes are 0
    assert all(bool(p.grad.isfinite().all()) for p in sae.parameters() if p.grad is not None)


def test_infonce_is_the_cross_entropy_of_the_codes_cosines() -> None:
    sae, (image, text) = made(InfoNCESAE, coefficient=0.4, temperature=0.2), pairs()
    z, w = (c / np.maximum(np.linalg.norm(c, axis=1, keepdims=True), 1e-12) for c in codes_of(sae, image, text))
    logits = z @ w.T / 0.2
    rows, columns = (np.log(np.exp(logits).sum(axis)) - np.diag(logits) for axis in (1, 0))
    assert float(sae(image, text).penalty.detach()) == pytest.approx(0.4 * (rows + columns).mean() / 2, rel=1e-5)


@pytest.mark.parametrize("kernel", ["sparse", "dense"])
def test_sparc_chooses_for_the_pair_and_reconstructs_crosswise(kernel: str) -> None:
    sae, (image, text) = made(SparcSAE, cross_coefficient=0.4, kernel=kernel), pairs()
    encoder, bias, decoder, shift, *sides = arrays(sae, image, text)
    centered = [z - b for z, b in zip(sides, shift, strict=True)]
    halves = slice(0, N), slice(N, 2 * N)
    activations = [c @ encoder[half].T + bias[half] for c, half in zip(centered, halves, strict=True)]
    chosen = sum(activations) >= np.sort(sum(activations), axis=1)[:, -K][:, None]
    codes = [np.where(chosen, np.maximum(a, 0), 0) for a in activations]
    output = sae(image, text)
    np.testing.assert_allclose(output.codes.dense().detach().numpy(), np.concatenate(codes), atol=1e-6)
    own = sum(((c - z @ decoder[half]) ** 2).sum() for c, z, half in zip(centered, codes, halves, strict=True))
    cross = sum(((c - z @ decoder[half]) ** 2).sum() for c, z, half in zip(centered, codes[::-1], halves, strict=True))
    assert float(output.loss.detach()) == pytest.approx(own / PAIRS, rel=1e-5)
    assert float(output.penalty.detach()) == pytest.approx(0.4 * cross / PAIRS, rel=1e-5)
    alone = sae.encode(text, "text").detach().numpy()  # without its image
    np.testing.assert_allclose(alone, top(activations[1]), atol=1e-6)
    np.testing.assert_allclose(
        sae.decode(torch.tensor(alone), "text").detach(), alone @ decoder[N:] + shift[1], atol=1e-6
    )


@pytest.mark.parametrize("kind", [SparcSAE, MatchedSAEs, GroupSparseSAE, InfoNCESAE, IsoEnergySAE])
@pytest.mark.parametrize("encoder", ["transposed", "tied"])
def test_both_kernels_have_one_gradient(kind: Any, encoder: str) -> None:
    """Gathered rows with hand-written gradients, and whole matrices with autograd."""
    gradients: list[dict[str, torch.Tensor]] = []
    dead = torch.arange(N) < 5
    for kernel in ("sparse", "dense"):
        sae = made(kind, kernel=kernel, encoder=encoder).double()
        output = sae(*(z.double() for z in pairs()))
        (output.loss + (0 if output.penalty is None else output.penalty)).backward()
        sae.auxiliary_loss(output, sae.dead_rows(dead.expand(2, N)), 2).backward()
        gradients.append({name: p.grad for name, p in sae.named_parameters()})
    assert gradients[0].keys() >= {"W_enc", "b_enc", "b_pre"}
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=lambda m, name=name: f"{name}: {m}")
        assert gradient.abs().max() > 0


def test_codes_at_given_latents_have_the_gradient_of_their_product() -> None:
    z, weight = (torch.randn(size, D, dtype=torch.float64, requires_grad=True) for size in (6, N))
    bias = torch.randn(N, dtype=torch.float64, requires_grad=True)
    indices = topk(torch.randn(6, N), K)[1]

    def codes(z: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return encode_at(z, weight, bias, indices).dense()

    assert torch.autograd.gradcheck(codes, (z, weight, bias))


@pytest.mark.parametrize("kind", [IsoEnergySAE, InfoNCESAE])
def test_without_a_weight_it_is_topk(kind: Any) -> None:
    torch.manual_seed(0)
    plain = TopKSAE(D, N, K)
    torch.manual_seed(0)
    sae = kind(D, N, coefficient=0, k=K)
    image, text = pairs()
    expected, output = plain(image, text), sae(image, text)
    assert output.penalty is None
    torch.testing.assert_close(output.loss, expected.loss)
    torch.testing.assert_close(sae.encode(image, "image"), plain.encode(image, "image"))


def test_masks_are_the_same_for_both_sides_vary_and_go_on_where_they_were(tmp_path: Path) -> None:
    sae, (image, text) = GroupSparseSAE(D, N, mask=0.5, k=K), pairs(count=400)
    seen = []
    for _ in range(12):
        shown = set(sae.shown_latents().tolist())
        fired = sae(image, text).fired
        assert len(shown) == 8
        for side in fired:
            assert set(side.nonzero().flatten().tolist()) <= shown
        assert (fired[0] & fired[1]).sum() > 4
        seen.append(shown)
    assert len({frozenset(shown) for shown in seen}) == 12
    assert set.union(*seen) == set(range(N))
    sae.save_pretrained(tmp_path)
    loaded = Dictionary.from_pretrained(tmp_path)
    assert isinstance(loaded, GroupSparseSAE)
    assert set(loaded.shown_latents().tolist()) == set(sae.shown_latents().tolist()) != seen[0]
    sae.eval()
    assert sae(image, text).fired.all(0).sum() > 8  # nothing is masked outside training
    assert int(sae.steps) == 12


def test_the_auxiliary_loss_of_two_sides_takes_each_sides_own_weights() -> None:
    sae, (image, text) = made(MatchedSAEs), pairs()
    silent = torch.stack([torch.arange(N) < 5, torch.arange(N) >= N - 4])  # other latents of images than of texts
    output = sae(image, text)
    encoder, bias, decoder, *_ = arrays(sae)
    error, residuals = 0.0, output.residual.numpy()
    for side in range(2):
        rows = np.flatnonzero(silent[side].numpy()) + side * N
        centered, residual = (x.numpy()[side * PAIRS : (side + 1) * PAIRS] for x in (output.centered, output.residual))
        error += ((residual - top(centered @ encoder[rows].T + bias[rows], 2) @ decoder[rows]) ** 2).sum()
    expected = error / ((residuals - residuals.mean(0)) ** 2).sum()
    dead = sae.dead_rows(silent)
    assert float(sae.auxiliary_loss(output, dead, 2).detach()) == pytest.approx(expected, rel=1e-4)
    assert made(SparcSAE).dead_rows(silent).sum() == 0, "its latents are those of both sides: none is silent on both"


def test_matched_latents_of_texts_are_reordered() -> None:
    sae, (image, text) = made(MatchedSAEs), pairs()
    before, images = sae.encode(text, "text"), sae.encode(image, "image")
    decoded = sae.decode(before, "text")
    order = torch.randperm(N)
    sae.align(order, torch.linspace(0, 1, N).double())
    after = sae.encode(text, "text")
    torch.testing.assert_close(after, before[:, order])
    torch.testing.assert_close(sae.decode(after, "text"), decoded)
    torch.testing.assert_close(sae.encode(image, "image"), images)
    torch.testing.assert_close(sae.match, torch.linspace(0, 1, N))
    with pytest.raises(DictionaryError, match="no architecture for a matched_saes"):
        export_to_saelens(sae, "nowhere")
    assert sae.atoms is None
    torch.testing.assert_close(sae.atoms_of("text"), sae.W_dec[N:])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SparcSAE(D, N, k=K, center="pooled"), "center=pooled"),
        (lambda: MatchedSAEs(D, N, k=K, center="pooled"), "center=pooled"),
        (lambda: SparcSAE(D, N, k=N + 1), f"k={N + 1}"),
        (lambda: SparcSAE(D, N, k=K, cross_coefficient=-1), "cross_coefficient=-1"),
        (lambda: MatchedSAEs(D, N, k=K, match_pairs=1), "match_pairs=1"),
        (lambda: GroupSparseSAE(D, N, k=K, coefficient=-1), "coefficient=-1"),
        (lambda: GroupSparseSAE(D, N, k=K, mask=1.0), "mask=1.0"),
        (lambda: GroupSparseSAE(D, N, k=K, mask=0.9), "mask=0.9 leaves 2 of 16 latents, fewer than k=3"),
        (lambda: InfoNCESAE(D, N, k=K, temperature=0), "temperature=0"),
        (lambda: IsoEnergySAE(D, N, k=K, coefficient=-0.1), "coefficient=-0.1"),
    ],
)
def test_arguments_that_cannot_work_are_named(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


SMALL = SyntheticParameters(
    pairs=6000, dim=32, image_atoms=12, text_atoms=12, shared_atoms=16, active=3, direction_cosine=0.5, gain_spread=0.3
)
TRAINED: Mapping[str, tuple[Any, dict[str, Any]]] = {
    "topk": (TopKSAE, {}),
    "group_sparse": (GroupSparseSAE, {}),
    "iso_energy": (IsoEnergySAE, {}),
    "infonce": (InfoNCESAE, {}),
    "sparc": (SparcSAE, {}),
    "matched_saes": (MatchedSAEs, {}),
}


class Outcome:
    """A dictionary that is trained on pairs whose shared concepts have two directions."""

    def __init__(self, kind: str, data: SyntheticPairs) -> None:
        image, text = F.normalize(data.image, dim=1), F.normalize(data.text, dim=1)
        fitted, held_out = slice(0, 4500), slice(4500, None)
        made, settings = TRAINED[kind]
        torch.manual_seed(0)
        sae: Any = made(32, 60, k=3, center="per_modality", **settings)
        sae.initialize_pre_bias(image[fitted].mean(0), text[fitted].mean(0))
        optimizer = torch.optim.Adam(sae.parameters(), lr=1e-2)
        generator = torch.Generator().manual_seed(0)
        for _ in range(300):
            rows = torch.randint(4500, (256,), generator=generator)
            output = sae(image[rows], text[rows])
            optimizer.zero_grad()
            (output.loss + (0 if output.penalty is None else output.penalty)).backward()
            sae.project_decoder_gradient()
            optimizer.step()
            sae.normalize_decoder_()
        sae.eval()
        with torch.no_grad():
            if isinstance(sae, MatchedSAEs):
                sae.align(*match_sides([(sae.encode(image[fitted], "image"), sae.encode(text[fitted], "text"))]))
            self.image, self.text = sae.encode(image[held_out], "image"), sae.encode(text[held_out], "text")
        found = [
            feature_correlations([(data.image_codes[held_out], self.image)]),
            feature_correlations([(data.text_codes[held_out], self.text)]),
        ]
        self.splitting = concept_splitting(found[0], found[1], data.kind)
        self.recall = recall_at_k(self.image, self.text, (1,))[1]
        best = found[0][data.kind == 2].argmax(1)
        energies = [side.square().mean(0)[best] for side in (self.image, self.text)]
        self.energy_gap = float(((energies[0] - energies[1]).abs() / (energies[0] + energies[1])).mean())


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    data = synthesize(SMALL)
    return {kind: Outcome(kind, data) for kind in TRAINED}


def test_topk_splits_concepts_of_two_directions(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["topk"].splitting.split > 0.6
    assert outcomes["topk"].splitting.one < 0.2


@pytest.mark.parametrize(("kind", "least"), [("sparc", 0.9), ("matched_saes", 0.9), ("infonce", 0.7)])
def test_these_keep_a_concept_in_one_latent(outcomes: dict[str, Outcome], kind: str, least: float) -> None:
    assert outcomes[kind].splitting.one > least
    assert outcomes[kind].recall > 3 * outcomes["topk"].recall


@pytest.mark.parametrize("kind", ["group_sparse", "iso_energy"])
def test_these_mend_some_of_them(outcomes: dict[str, Outcome], kind: str) -> None:
    assert outcomes[kind].splitting.one > outcomes["topk"].splitting.one + 0.1
    assert outcomes[kind].recall > outcomes["topk"].recall


def test_iso_energy_brings_energies_together(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["iso_energy"].energy_gap < 0.8 * outcomes["topk"].energy_gap


def test_the_module_adds_what_pairs_cost() -> None:
    """With their warm-up, as for penalties of other kinds."""
    module = SAEModule(made(SparcSAE, cross_coefficient=1.0), penalty_warmup_steps=10)
    batch = type("Batch", (), dict(zip(("image", "text"), pairs(), strict=True)))()
    module._trainer = type("Trainer", (), {"global_step": 3, "log_every_n_steps": 5})()
    output = module.dictionary(batch.image, batch.text)
    assert output.penalty is not None
    got = module.training_step(batch, 0).detach()
    assert float(got) == pytest.approx(float((output.loss + 0.4 * output.penalty).detach()), rel=1e-5)
