import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from mmmono.dictionaries import TopKSAE
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


@pytest.mark.parametrize("center", ["pooled", "per_modality"])
@pytest.mark.parametrize("encoder_bias", [False, True])
def test_the_training_step_has_the_gradients_autograd_gives_the_dense_one(center: str, encoder_bias: bool) -> None:
    torch.manual_seed(1)
    image, text = torch.randn(30, 8, dtype=torch.float64), torch.randn(30, 8, dtype=torch.float64) + 1
    results = {}
    for kernel in ("sparse", "dense"):
        torch.manual_seed(2)
        sae = TopKSAE(8, 24, 5, center=center, encoder_bias=encoder_bias, kernel=kernel).double()  # type: ignore[arg-type]
        sae.initialize_pre_bias(image.mean(0), text.mean(0))
        with torch.no_grad():
            sae.W_enc += 0.3 * torch.randn_like(sae.W_enc)
            if sae.b_enc is not None:
                sae.b_enc += torch.randn_like(sae.b_enc) - 1
        output = sae(image, text)
        (3 * output.loss).backward()
        results[kernel] = (output, {name: p.grad for name, p in sae.named_parameters()})
    (sparse, sparse_grads), (dense, dense_grads) = results["sparse"], results["dense"]
    torch.testing.assert_close(sparse.loss, dense.loss)
    torch.testing.assert_close(sparse.residual, dense.residual)
    torch.testing.assert_close(sparse.codes.dense(), dense.codes.dense())
    assert torch.equal(sparse.fired, dense.fired)
    assert sparse_grads.keys() == dense_grads.keys()
    for name, grad in dense_grads.items():
        torch.testing.assert_close(sparse_grads[name], grad, msg=lambda m, name=name: f"{name}: {m}")


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    z, weight = torch.randn(50, 16), torch.randn(64, 16)
    whole = select_latents(z, weight, None, 3)
    monkeypatch.setattr("mmmono.dictionaries.sparse.CHUNK_ELEMENTS", 64 * 7)
    pieces = select_latents(z, weight, None, 3)
    torch.testing.assert_close(whole[0].sort().values, pieces[0].sort().values)


def test_bfloat16_proposes_and_float32_decides() -> None:
    torch.manual_seed(0)
    z, weight = torch.randn(400, 128), torch.nn.functional.normalize(torch.randn(1024, 128), dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        values, indices = select_latents(z, weight, None, 16)
    exact = (z @ weight.T).topk(16, dim=1)
    torch.testing.assert_close(values, (z @ weight.T).gather(1, indices))  # exact values, whichever were chosen
    agreement = (values.sort(descending=True).values - exact.values).abs()
    assert (agreement < 1e-4).float().mean() > 0.999
