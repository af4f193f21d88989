import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.nn import functional as F

from mmmono.dictionaries import TopKSAE, sparse
from mmmono.dictionaries.sparse import _compiled_topk as compiled
from mmmono.dictionaries.sparse import decode_sparse, encode_topk, sampled_product, select_latents, topk


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 5),
    columns=st.sampled_from([7, 64, 256, 1024, 1032]),
    k=st.integers(1, 7),
    ties=st.booleans(),
    seed=st.integers(0, 999),
)
def test_topk_finds_what_sorting_finds(rows: int, columns: int, k: int, ties: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, columns)).astype(np.float32)
    if ties:
        x = x.round()
    values, indices = topk(torch.from_numpy(x), k)
    expected = np.sort(x, axis=1)[:, ::-1][:, :k]
    np.testing.assert_array_equal(np.sort(values.numpy(), axis=1)[:, ::-1], expected)
    np.testing.assert_array_equal(np.take_along_axis(x, indices.numpy(), 1), values.numpy())
    assert all(len(set(row)) == k for row in indices.tolist())


def test_searches_without_gradients_are_compiled_and_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr(sparse, "WORTH_COMPILING", 4 * 600 * 96)
    monkeypatch.setattr(sparse, "_searches", sparse._Searches())
    x = torch.randn(600, 96, generator=torch.Generator().manual_seed(0))
    called = []
    monkeypatch.setattr(sparse, "_compiled_topk", lambda *given: called.append(given) or compiled(*given))
    expected = x.topk(5, dim=1)
    for round in range(5):
        topk(x, 5)  # with gradients: not counted
        with torch.inference_mode():
            values, indices = topk(x, 5)
            for other in (x.double(), x.bfloat16()):
                assert torch.equal(topk(other, 5)[0].sort(1, descending=True).values, other.topk(5, dim=1).values)
        assert len(called) == max(0, round - 2)
        assert torch.equal(values.sort(1, descending=True).values, expected.values)
        assert torch.equal(indices.sort(1).values, expected.indices.sort(1).values)
    with torch.inference_mode(), pytest.raises(RuntimeError, match="out of range"):
        topk(x, 97)


def test_codes_are_bit_for_bit_those_of_a_search_that_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    torch.manual_seed(0)
    sae, z = TopKSAE(16, 64, 5), torch.randn(300, 16)
    with torch.inference_mode():
        before = sae.encode(z, "image")
        monkeypatch.setattr(sparse, "WORTH_COMPILING", 0)
        assert torch.equal(sae.encode(z, "image"), before)
    assert bool((before != 0).any())


def test_sampled_product_is_the_products_entries() -> None:
    left, right = torch.randn(9, 6, dtype=torch.float64), torch.randn(20, 6, dtype=torch.float64)
    indices = torch.stack([torch.randperm(20)[:4] for _ in range(9)])
    np.testing.assert_allclose(
        sampled_product(left, right, indices).numpy(),
        np.take_along_axis(left.numpy() @ right.numpy().T, indices.numpy(), 1),
    )


@pytest.mark.parametrize("with_bias", [False, True])
def test_gradients_of_encoder_and_decoder(with_bias: bool) -> None:
    """Against finite differences, with rows that have fewer than k positive activations."""
    torch.manual_seed(0)
    z = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(12, 5, dtype=torch.float64, requires_grad=True)
    bias = torch.full((12,), -0.8, dtype=torch.float64, requires_grad=True) if with_bias else None
    decoder = torch.randn(12, 5, dtype=torch.float64, requires_grad=True)

    def run(z: torch.Tensor, weight: torch.Tensor, decoder: torch.Tensor, *bias: torch.Tensor) -> torch.Tensor:
        codes = encode_topk(z, weight, bias[0] if bias else None, 4)
        return decode_sparse(codes, decoder)

    values = encode_topk(z, weight, bias, 4).values
    assert not with_bias or ((values == 0).any() and (values > 0).any())
    assert gradcheck(run, (z, weight, decoder, *([bias] if bias is not None else [])))


def reference(
    sae: TopKSAE, image: torch.Tensor, text: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Loss, dense codes and all gradients of three times the loss, by Eq. 2 and 3 with whole matrices and autograd."""
    weights = {name: p.detach().clone().requires_grad_() for name, p in sae.named_parameters()}
    leaves = {"image": image.detach().clone().requires_grad_(), "text": text.detach().clone().requires_grad_()}
    loss, codes = torch.zeros((), dtype=image.dtype), []
    for row, z in enumerate(leaves.values()):
        b_pre = weights["b_pre"][row % len(weights["b_pre"])]
        activation = (z - b_pre) @ weights["W_enc"].T + weights.get("b_enc", torch.zeros((), dtype=z.dtype))
        threshold = activation.detach().topk(sae.k, dim=1).values[:, -1:]
        codes.append(activation.relu() * (activation >= threshold))
        loss = loss + (codes[-1] @ weights["W_dec"] + b_pre - z).square().sum(1).mean()
    (3 * loss).backward()
    return loss.detach(), torch.cat(codes).detach(), {k: v.grad for k, v in (weights | leaves).items()}  # type: ignore[misc]


def float64_sae(kernel: str, center: str, encoder_bias: bool, image: torch.Tensor, text: torch.Tensor) -> TopKSAE:
    """Untied, off its start, and with a bias that leaves some rows fewer than k positive activations."""
    torch.manual_seed(2)
    sae = TopKSAE(8, 24, 5, center=center, encoder_bias=encoder_bias, kernel=kernel).double()  # type: ignore[arg-type]
    sae.initialize_pre_bias(image.mean(0), text.mean(0))
    with torch.no_grad():
        sae.W_enc += 0.3 * torch.randn_like(sae.W_enc)
        if sae.b_enc is not None:
            sae.b_enc += torch.randn_like(sae.b_enc) - 2
    return sae


@pytest.mark.parametrize("kernel", ["sparse", "dense"])
@pytest.mark.parametrize("center", ["pooled", "per_modality"])
@pytest.mark.parametrize("encoder_bias", [False, True])
@pytest.mark.parametrize("embeddings_learn", [False, True])
def test_the_training_step_is_that_of_whole_matrices(
    kernel: str, center: str, encoder_bias: bool, embeddings_learn: bool
) -> None:
    torch.manual_seed(1)
    image, text = torch.randn(30, 8, dtype=torch.float64), torch.randn(30, 8, dtype=torch.float64) + 1
    sae = float64_sae(kernel, center, encoder_bias, image, text)
    loss, codes, expected = reference(sae, image, text)
    assert not encoder_bias or ((codes > 0).sum(1) < sae.k).any()
    image.requires_grad_(embeddings_learn)
    text.requires_grad_(embeddings_learn)
    output = sae(image, text)
    torch.testing.assert_close(output.loss.detach(), loss)
    torch.testing.assert_close(output.codes.dense().detach(), codes)
    assert torch.equal(output.fired, (codes > 0).view(2, 30, -1).any(1))
    (3 * output.loss).backward()
    got = {name: p.grad for name, p in sae.named_parameters()}
    if embeddings_learn:
        got |= {"image": image.grad, "text": text.grad}
    for name, grad in got.items():
        torch.testing.assert_close(grad, expected[name], msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["sparse", "dense"])
def test_gradients_of_the_loss(kernel: str) -> None:
    """Against finite differences."""
    torch.manual_seed(1)
    image, text = torch.randn(6, 8, dtype=torch.float64), torch.randn(6, 8, dtype=torch.float64) + 1
    sae = float64_sae(kernel, "per_modality", True, image, text)
    names = [name for name, _ in sae.named_parameters()]

    def run(image: torch.Tensor, text: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        named = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(sae, named, (image, text)).loss

    weights = [p.detach().clone().requires_grad_() for p in sae.parameters()]
    assert gradcheck(run, (image, text, *weights))  # the gradients written out
    assert gradcheck(run, (image.requires_grad_(), text.requires_grad_(), *weights))  # autograd's


def test_a_tie_for_the_last_place_is_broken_once() -> None:
    """Pairs of equal latents and an odd k: of the pair on the edge one is taken, and it alone learns."""
    torch.manual_seed(0)
    weight = torch.randn(32, 8, dtype=torch.float64).repeat(2, 1).requires_grad_()
    z = torch.randn(10, 8, dtype=torch.float64)
    codes = encode_topk(z, weight, None, 3)
    expected = np.sort((z @ weight.T).detach().numpy(), axis=1)[:, ::-1][:, :3]
    np.testing.assert_allclose(np.sort(codes.values.detach().numpy(), axis=1)[:, ::-1], expected)
    codes.values.sum().backward()
    torch.testing.assert_close(weight.grad, (codes.dense().detach() > 0).double().T @ z)


@pytest.mark.parametrize("kernel", ["sparse", "dense"])
def test_bf16_mixed_trains_float32_weights(kernel: str) -> None:
    torch.manual_seed(0)
    sae = TopKSAE(64, 256, 8, kernel=kernel)  # type: ignore[arg-type]
    image, text = torch.randn(100, 64), torch.randn(100, 64)
    full = sae(image, text).loss
    full.backward()
    expected = {name: p.grad.clone() for name, p in sae.named_parameters()}
    sae.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = sae(image, text).loss
    mixed.backward()
    torch.testing.assert_close(mixed, full, rtol=1e-2, atol=0)
    for name, p in sae.named_parameters():
        assert p.grad.dtype == torch.float32
        assert F.cosine_similarity(p.grad.flatten(), expected[name].flatten(), dim=0) > 0.99, name


@pytest.mark.parametrize("kernel", ["sparse", "dense"])
def test_half_precision_features_are_centered_in_float32(kernel: str) -> None:
    torch.manual_seed(0)
    sae = TopKSAE(16, 64, 4, kernel=kernel)  # type: ignore[arg-type]
    sae.initialize_pre_bias(torch.randn(16), torch.randn(16))
    half = torch.randn(2, 20, 16).half()
    torch.testing.assert_close(sae(*half).residual, sae(*half.float()).residual, rtol=0, atol=0)


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    z, weight = torch.randn(50, 16), torch.randn(64, 16)
    whole = select_latents(z, weight, None, 3)
    monkeypatch.setattr("mmmono.dictionaries.sparse.CHUNK_ELEMENTS", 64 * 7)
    pieces = select_latents(z, weight, None, 3)
    torch.testing.assert_close(whole[0].sort().values, pieces[0].sort().values)


def test_bfloat16_proposes_and_float32_decides() -> None:
    torch.manual_seed(0)
    z, weight = torch.randn(400, 128), F.normalize(torch.randn(1024, 128), dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        values, indices = select_latents(z, weight, None, 16)
    exact = (z @ weight.T).topk(16, dim=1)
    torch.testing.assert_close(values, (z @ weight.T).gather(1, indices))  # exact values, whichever were chosen
    agreement = (values.sort(descending=True).values - exact.values).abs()
    assert (agreement < 1e-4).float().mean() > 0.999
