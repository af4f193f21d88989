"""The kinds of sparse autoencoders: each is what its paper's formula says, written here a second time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F

from mmmono.dictionaries import Dictionary, SAEModule, SparseAutoencoder, TopKSAE, fused
from mmmono.dictionaries.base import dictionary_class
from mmmono.dictionaries.batch_topk import BatchTopKSAE
from mmmono.dictionaries.gated import GatedSAE
from mmmono.dictionaries.jumprelu import JumpReLUSAE
from mmmono.dictionaries.l1_sae import L1SAE
from mmmono.dictionaries.matching_pursuit import MatchingPursuitSAE
from mmmono.dictionaries.matryoshka import MatryoshkaSAE
from mmmono.dictionaries.selection import PerBatch

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "batch_topk": ("batch_topk_sae", {"k": 3}),
    "matryoshka": ("matryoshka_sae", {"k": 3, "levels": [0.25, 0.5, 1]}),
    "matryoshka, reverse, per sample": (
        "matryoshka_sae",
        {"k": 3, "levels": [0.25, 0.5, 1], "weighting": "reverse", "select": "sample"},
    ),
    "jumprelu": ("jumprelu_sae", {"target_l0": 3, "coefficient": 1.0}),
    "jumprelu, tanh": ("jumprelu_sae", {"penalty": "tanh"}),
    "gated": ("gated_sae", {}),
    "l1": ("l1_sae", {}),
    "matching_pursuit": ("matching_pursuit_sae", {"k": 3}),
    "frozen_decoder": ("topk_sae", {"k": 3, "frozen": "decoder"}),
    "frozen_encoder": ("topk_sae", {"k": 3, "frozen": "encoder", "encoder": "independent"}),
    "tied": ("topk_sae", {"k": 3, "encoder": "tied"}),
    "group_sparse": ("group_sparse_sae", {"k": 3}),
    "iso_energy": ("iso_energy_sae", {"k": 3}),
    "infonce": ("infonce_sae", {"k": 3}),
    "sparc": ("sparc_sae", {"k": 3, "cross_coefficient": 0.1}),
    "matched_saes": ("matched_saes", {"k": 3}),
}


def made(kind: str, dim: int = 8, latents: int = 16, **more: Any) -> SparseAutoencoder:
    torch.manual_seed(0)
    architecture, settings = KINDS[kind]
    sae = dictionary_class(architecture)(dim, latents, **{**settings, **more})  # type: ignore[call-arg]
    assert isinstance(sae, SparseAutoencoder)
    return sae


def pairs(seed: int = 1, count: int = 40, dim: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image, text = F.normalize(torch.randn(2, count, dim, generator=generator), dim=2)
    return image, text


def train(sae: SparseAutoencoder, steps: int = 60, autocast: bool = False) -> float:
    """Train as `SAEModule` does, and return the last loss."""
    optimizer, loss = torch.optim.Adam(sae.parameters(), lr=1e-2), torch.zeros(())
    for step in range(steps):
        image, text = pairs(step % 4, 64)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = sae(image, text)
        loss = output.loss if output.penalty is None else output.loss + output.penalty
        loss.backward()
        sae.project_decoder_gradient()
        optimizer.step()
        sae.normalize_decoder_()
    return float(loss.detach())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("autocast", [False, True])
def test_each_kind_learns(kind: str, autocast: bool) -> None:
    sae = made(kind)
    sae.initialize_pre_bias(*(z.mean(0) for z in pairs(0)))
    before, after = train(sae, 1), train(sae, 80, autocast)
    assert after < 0.9 * before
    assert all(p.dtype == torch.float32 and bool(p.isfinite().all()) for p in sae.parameters())
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(len(sae.W_dec)))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_saved_with_all_that_it_encodes_by(kind: str, tmp_path: Path) -> None:
    sae = made(kind, center="per_modality")
    train(sae, 20)
    sae.save_pretrained(tmp_path)
    loaded = Dictionary.from_pretrained(tmp_path)
    assert type(loaded) is type(sae)
    assert loaded.config() == sae.config()
    z = pairs(9)[1]
    codes = sae.encode(z, "text")
    assert codes.min() >= 0
    assert codes.max() > 0
    assert torch.equal(loaded.encode(z, "text"), codes)
    assert torch.equal(loaded.decode(codes, "text"), sae.decode(codes, "text"))
    alone = torch.cat([sae.encode(row, "text") for row in z.split(1)])  # codes do not depend on the batch
    torch.testing.assert_close(alone, codes)


def test_batch_topk_keeps_the_largest_of_the_batch() -> None:
    sae = made("batch_topk", encoder_bias=True)
    with torch.no_grad():
        sae.b_enc.copy_(0.1 * torch.randn(16))
    image, text = pairs()
    with torch.no_grad():
        codes = sae(image, text).codes.dense().numpy()
    activations = np.concatenate([image, text]) @ sae.W_enc.detach().numpy().T + sae.b_enc.detach().numpy()
    smallest = np.sort(activations.ravel())[::-1][3 * 80 - 1]
    np.testing.assert_allclose(codes, np.where(activations >= smallest, activations, 0), atol=1e-6)
    assert (codes > 0).sum(1).std() > 0.5  # more of some samples than of others
    np.testing.assert_allclose(float(sae.threshold), smallest, rtol=1e-6)
    with torch.no_grad():
        sae(*pairs(2))
    other = np.sort((np.concatenate(pairs(2)) @ sae.W_enc.detach().numpy().T + sae.b_enc.detach().numpy()).ravel())
    np.testing.assert_allclose(float(sae.threshold), 0.99 * smallest + 0.01 * other[::-1][3 * 80 - 1], rtol=1e-5)
    encoded = sae.encode(image, "image").detach().numpy()
    kept = activations[:40] > float(sae.threshold)
    np.testing.assert_allclose(encoded, np.where(kept, activations[:40], 0), atol=1e-6)


def test_batch_topk_keeps_all_positive_ones_if_these_are_fewer() -> None:
    sae = BatchTopKSAE(8, 16, k=15)
    image, text = pairs()
    with torch.no_grad():
        codes = sae(image, text).codes.dense()
        torch.testing.assert_close(codes, (torch.cat([image, text]) @ sae.W_enc.T).relu())
    assert float(sae.threshold) == pytest.approx(float(codes[codes > 0].min()))


def test_before_it_is_trained_batch_topk_keeps_k_of_each_sample() -> None:
    sae = BatchTopKSAE(8, 16, k=3)
    assert sae.threshold is None
    assert ((sae.encode(pairs()[0], "image") > 0).sum(1) == 3).all()


def test_the_search_for_the_threshold_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it expects of the batch, in whatever chunks: the same codes, as a resumed training needs."""
    z = torch.cat(pairs(count=100))
    weight = F.normalize(torch.randn(64, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    expected = PerBatch(5).choose(z, weight, None)
    for guess in (1e-9, 0.2, 0.9, 50.0):
        selection = PerBatch(5)
        selection._last = guess
        got = selection.choose(z, weight, None)
        assert torch.equal(got.values, expected.values)
        assert torch.equal(got.pattern.indices, expected.pattern.indices)
        assert torch.equal(got.pattern.row_starts, expected.pattern.row_starts)
    monkeypatch.setattr("mmmono.dictionaries.selection.CHUNK_ELEMENTS", 64 * 7)
    got = PerBatch(5).choose(z, weight, None)
    torch.testing.assert_close(got.dense(), expected.dense())


def by_whole_matrices(sae: Any, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """The loss by the papers' formulas, with autograd through dense codes that are given where they are not zero."""
    with torch.no_grad():
        active = sae(image, text).codes.dense() > 0
    z = torch.cat([image, text])
    shift = sae.b_pre.repeat_interleave(len(z) // len(sae.b_pre), 0)
    codes = ((z - shift) @ sae.W_enc.T + (0 if sae.b_enc is None else sae.b_enc)) * active
    weights = [1.0] if len(sae.levels) == 1 else {"uniform": [1, 1, 1], "reverse": [3, 2, 1]}[sae.weighting]
    ends = [16] if len(sae.levels) == 1 else [4, 8, 16]
    loss = torch.zeros((), dtype=z.dtype)
    for end, weight in zip(ends, weights, strict=True):
        reconstruction = codes[:, :end] @ sae.W_dec[:end] + shift
        loss = loss + weight / sum(weights) * (reconstruction - z).square().sum() / len(image)
    return loss


@pytest.mark.parametrize("kernel", ["sparse", "dense"])
@pytest.mark.parametrize("center", ["pooled", "per_modality"])
@pytest.mark.parametrize(
    "kind", ["batch_topk", "matryoshka", "matryoshka, reverse, per sample", "tied", "frozen_decoder", "frozen_encoder"]
)
def test_the_training_step_is_that_of_whole_matrices(kind: str, center: str, kernel: str) -> None:
    sae = made(kind, center=center, kernel=kernel, encoder_bias=True).double()
    with torch.no_grad():
        for p in sae.parameters():
            p += 0.05 * torch.randn_like(p)
    image, text = (z.double() for z in pairs())
    expected = by_whole_matrices(sae, image, text)
    expected.backward()
    gradients = {name: p.grad for name, p in sae.named_parameters()}
    sae.zero_grad()
    loss = sae(image, text).loss
    loss.backward()
    torch.testing.assert_close(loss, expected)
    for name, p in sae.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(p.grad, gradients[name], msg=lambda m, name=name: f"{name}: {m}")
        else:
            assert p.grad is None, name


def test_gradients_of_nested_levels() -> None:
    """Against finite differences."""
    sae: Any = made("matryoshka", dim=5, latents=8, center="per_modality", kernel="sparse", encoder_bias=True).double()
    image, text = (z.double() for z in pairs(count=5, dim=5))
    names = [name for name, _ in sae.named_parameters()]

    def run(*weights: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(sae, dict(zip(names, weights, strict=True)), (image, text)).loss

    assert gradcheck(run, [p.detach().clone().requires_grad_() for p in sae.parameters()])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", ["matryoshka", "matryoshka, reverse, per sample"])
def test_large_batches_of_nested_levels_have_the_same_gradients(
    kind: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the compiled loop are those of tensor operations."""

    def step(least: int) -> tuple[torch.Tensor, dict[str, torch.Tensor | None]]:
        monkeypatch.setattr(fused, "WORTH_COMPILING", least)
        sae = made(kind, center="per_modality", encoder_bias=True)
        loss = sae(*pairs()).loss
        loss.backward()
        return loss, {name: p.grad for name, p in sae.named_parameters()}

    monkeypatch.setattr(fused, "num_parts", lambda: threads)
    (loss, gradients), (expected, expected_gradients) = step(0), step(1 << 60)
    torch.testing.assert_close(loss, expected)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], msg=lambda m, name=name: f"{name}: {m}")


def test_the_first_latents_of_a_matryoshka_reconstruct_better_alone() -> None:
    def left_by_first(kind: str) -> float:
        sae = made(kind, 8, 16, k=3)
        train(sae, 300)
        image = pairs(1, 64)[0]
        codes = sae.encode(image, "image").detach()
        codes[:, 4:] = 0
        return float((sae.decode(codes, "image") - image).detach().square().sum(1).mean())

    assert left_by_first("matryoshka") < 0.9 * left_by_first("batch_topk")


def test_jumprelu_estimates_the_gradients_of_its_paper() -> None:
    """Those of Rajamanoharan et al. 2024 (arXiv 2407.14435), in numpy."""
    sae = JumpReLUSAE(8, 16, coefficient=0.3, bandwidth=0.2, threshold=0.3)
    with torch.no_grad():
        sae.thresholds += 0.1 * torch.rand(16)
    image, text = pairs()
    output = sae(image, text)
    (output.loss + output.penalty).backward()
    z, weight, theta = torch.cat([image, text]).numpy(), sae.W_enc.detach().numpy(), sae.thresholds.detach().numpy()
    pi = z @ weight.T
    codes = pi * (pi > theta)
    np.testing.assert_allclose(output.codes.dense().detach().numpy(), codes, atol=1e-6)
    assert float(output.penalty) == pytest.approx(0.3 * (codes > 0).sum() / 40)
    by_codes = 2 * (codes @ weight - z) @ weight.T / 40  # atoms equal the encoder before the first step
    near = np.abs(pi - theta) < 0.1
    expected = (-near.astype(float) / 0.2 * (theta * by_codes + 0.3 / 40)).sum(0)
    np.testing.assert_allclose(sae.thresholds.grad.numpy(), expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(sae.W_enc.grad.numpy(), ((pi > theta) * by_codes).T @ z, rtol=1e-3, atol=1e-6)


def test_a_target_is_what_the_penalty_is_least_at() -> None:
    sae = JumpReLUSAE(8, 16, coefficient=0.5, target_l0=3)
    image, text = pairs()
    output = sae(image, text)
    assert float(output.penalty) == pytest.approx(2 * 0.5 * (float(output.l0) / 3 - 1) ** 2, rel=1e-5)
    train(sae, 400)
    l0 = (sae.encode(image, "image") > 0).sum(1).float().mean()
    assert 2 < l0 < 4
    assert sae.thresholds.min() >= 0


def test_tanh_is_the_penalty_of_its_name() -> None:
    sae = JumpReLUSAE(8, 16, penalty="tanh", coefficient=0.3, tanh_scale=4.0)
    image, text = pairs()
    output = sae(image, text)
    codes = output.codes.dense().detach().numpy()
    assert float(output.penalty) == pytest.approx(0.3 * np.tanh(4 * codes).sum() / 40, rel=1e-5)
    output.penalty.backward()
    assert sae.W_enc.grad.abs().max() > 0


def test_a_gated_sae_learns_by_the_terms_of_its_paper() -> None:
    """The loss of Rajamanoharan et al. 2024 (arXiv 2404.16014), with autograd and copies of what is frozen."""
    sae = GatedSAE(8, 16, coefficient=0.3)
    with torch.no_grad():
        for p in (sae.b_enc, sae.b_mag, sae.r_mag, sae.b_pre):
            p += 0.1 * torch.randn_like(p)
    image, text = pairs()
    output = sae(image, text)
    (output.loss + output.penalty).backward()
    got = {name: p.grad.clone() for name, p in sae.named_parameters()}
    sae.zero_grad()
    z = torch.cat([image, text])
    gate = (z - sae.b_pre) @ sae.W_enc.T + sae.b_enc
    magnitude = (z - sae.b_pre) @ (sae.W_enc * sae.r_mag.exp()[:, None]).T + sae.b_mag
    codes = (gate > 0) * magnitude.relu()
    torch.testing.assert_close(output.codes.dense(), codes)
    loss = (codes @ sae.W_dec + sae.b_pre - z).square().sum() + 0.3 * gate.relu().sum()
    loss = loss + (gate.relu() @ sae.W_dec.detach() + sae.b_pre.detach() - z).square().sum()
    (loss / 40).backward()
    for name, p in sae.named_parameters():
        torch.testing.assert_close(got[name], p.grad, msg=lambda m, name=name: f"{name}: {m}")


def test_an_l1_penalty_is_the_sum_of_codes() -> None:
    sae = L1SAE(8, 16, coefficient=0.3, encoder_bias=True)
    image, text = pairs()
    output = sae(image, text)
    codes = np.maximum(torch.cat([image, text]).numpy() @ sae.W_enc.detach().numpy().T, 0)
    assert float(output.penalty) == pytest.approx(0.3 * codes.sum() / 40, rel=1e-5)


def test_matching_pursuit_takes_what_is_left() -> None:
    sae = MatchingPursuitSAE(8, 16, k=4)
    (z, _), atoms = pairs(), sae.W_dec.detach().numpy()
    expected = np.zeros((40, 16), np.float32)
    for row, residual in enumerate(z.numpy().copy()):
        for _ in range(4):
            best = int(np.argmax(atoms @ residual))
            value = max(0.0, float(atoms[best] @ residual))
            expected[row, best] += value
            residual -= value * atoms[best]
    np.testing.assert_allclose(sae.encode(z, "image").detach().numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(sae.activate(z @ sae.W_dec.T).detach().numpy(), expected, atol=1e-5)
    assert sae.W_enc is sae.W_dec


def test_frozen_weights_keep_their_bits() -> None:
    for kind, name in (("frozen_decoder", "W_dec"), ("frozen_encoder", "W_enc")):
        sae = made(kind, encoder_bias=kind == "frozen_encoder")
        before = getattr(sae, name).detach().clone()
        train(sae, 20)
        assert torch.equal(getattr(sae, name), before)
    assert torch.equal(sae.b_enc.detach(), torch.zeros(16))
    cosine = F.cosine_similarity(made("frozen_encoder").W_enc, made("frozen_encoder").W_dec, dim=1)
    assert cosine.abs().max() < 0.999  # encoder=independent


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: BatchTopKSAE(8, 16, k=17), "k=17"),
        (lambda: BatchTopKSAE(8, 16, k=3, threshold_rate=0), "threshold_rate=0"),
        (lambda: MatryoshkaSAE(8, 16, levels=[0.5, 0.25, 1], k=3), "not increasing"),
        (lambda: MatryoshkaSAE(8, 16, k=3, levels=[0.01, 1]), "not increasing"),
        (lambda: MatryoshkaSAE(8, 16, k=3, levels=[0.5]), "up to 1"),
        (lambda: MatryoshkaSAE(8, 16, k=3, weighting="most"), "weighting='most'"),
        (lambda: MatryoshkaSAE(8, 16, k=3, select="all"), "select='all'"),
        (lambda: JumpReLUSAE(8, 16, penalty="l2"), "penalty='l2'"),
        (lambda: JumpReLUSAE(8, 16, bandwidth=0), "bandwidth=0"),
        (lambda: JumpReLUSAE(8, 16, target_l0=17), "target_l0=17"),
        (lambda: JumpReLUSAE(8, 16, target_l0=3, penalty="tanh"), "target_l0=3"),
        (lambda: GatedSAE(8, 16, encoder_bias=False), "encoder_bias"),
        (lambda: GatedSAE(8, 16, coefficient=-1), "coefficient=-1"),
        (lambda: L1SAE(8, 16, coefficient=-1), "coefficient=-1"),
        (lambda: MatchingPursuitSAE(8, 16, k=0), "k=0"),
        (lambda: MatchingPursuitSAE(8, 16, k=3, encoder="transposed"), "tied"),
        (lambda: TopKSAE(8, 16, k=3, encoder="tied", frozen="decoder"), "frozen=decoder"),
        (lambda: TopKSAE(8, 16, k=3, encoder="shared"), "encoder='shared'"),
        (lambda: TopKSAE(8, 16, k=3, frozen="both"), "frozen='both'"),
    ],
)
def test_arguments_that_cannot_work_are_named(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_a_penalty_warms_up() -> None:
    module = SAEModule(L1SAE(8, 16, coefficient=1.0), penalty_warmup_steps=10)
    batch = type("Batch", (), dict(zip(("image", "text"), pairs(), strict=True)))()
    module._trainer = type("Trainer", (), {"global_step": 3, "log_every_n_steps": 5})()
    output = module.dictionary(batch.image, batch.text)
    got = module.training_step(batch, 0)
    assert float(got) == pytest.approx(float(output.loss + 0.4 * output.penalty), rel=1e-5)
