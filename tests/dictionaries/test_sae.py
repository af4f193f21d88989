import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from mmmono.core.errors import DictionaryError
from mmmono.dictionaries import Dictionary, NCLHead, TopKSAE


def as_in_the_appendix(z: torch.Tensor, weight: torch.Tensor, k: int) -> torch.Tensor:
    """The listing of Appendix A.1."""
    z_sae = F.relu(z @ weight.T)
    vals, ids = z_sae.topk(k, dim=1)
    z_sae = torch.zeros_like(z_sae)
    z_sae.scatter_(1, ids, vals)
    return z_sae


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Thousands of tiny products: on a busy machine their threads would wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("kernel", ["sparse", "dense"])
@pytest.mark.parametrize("center", ["pooled", "per_modality"])
def test_encodes_and_decodes_as_equation_2(kernel: str, center: str) -> None:
    torch.manual_seed(0)
    sae = TopKSAE(16, 48, 6, center=center, kernel=kernel)  # type: ignore[arg-type]
    z = {"image": torch.randn(20, 16), "text": torch.randn(20, 16) + 1}
    means = {modality: values.mean(0) for modality, values in z.items()}
    sae.initialize_pre_bias(means["image"], means["text"])
    for modality, values in z.items():
        b_pre = means[modality] if center == "per_modality" else (means["image"] + means["text"]) / 2
        codes = sae.encode(values, modality)  # type: ignore[arg-type]
        torch.testing.assert_close(codes, as_in_the_appendix(values - b_pre, sae.W_enc, 6))
        assert ((codes > 0).sum(1) <= 6).all()
        expected = codes.detach().numpy() @ sae.W_dec.detach().numpy() + b_pre.numpy()
        np.testing.assert_allclose(sae.decode(codes, modality).detach().numpy(), expected, atol=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("kernel", ["sparse", "dense"])
def test_loss_is_equation_3(kernel: str) -> None:
    torch.manual_seed(0)
    sae = TopKSAE(8, 16, 3, kernel=kernel)  # type: ignore[arg-type]
    image, text = torch.randn(50, 8), torch.randn(50, 8)
    sae.initialize_pre_bias(image.mean(0), text.mean(0))
    expected = sum(
        (z - sae.decode(sae.encode(z, m), m)).square().sum(1).mean()
        for m, z in (("image", image), ("text", text))  # type: ignore[arg-type]
    )
    torch.testing.assert_close(sae(image, text).loss, expected)


def test_starts_tied_with_unit_atoms_and_without_a_shift() -> None:
    sae = TopKSAE(40)
    assert (sae.num_features, sae.k) == (40, 32)
    torch.testing.assert_close(sae.W_enc, sae.W_dec)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(40))
    assert not TopKSAE(40, pre_bias=False).b_pre.requires_grad


@settings(max_examples=20, deadline=None)
@given(dim=st.integers(2, 12), latents=st.sampled_from([4, 600, 1500]), seed=st.integers(0, 999))
def test_projection_leaves_only_what_turns_the_atoms(dim: int, latents: int, seed: int) -> None:
    torch.manual_seed(seed)
    sae = TopKSAE(dim, latents, 4)
    sae(torch.randn(64, dim), torch.randn(64, dim)).loss.backward()
    before = sae.W_dec.grad.clone()
    sae.project_decoder_gradient()
    along = (sae.W_dec.grad * sae.W_dec).sum(1)
    torch.testing.assert_close(along, torch.zeros(latents), atol=1e-5 * float(before.abs().max()) + 1e-6, rtol=0)
    expected = before - (before * sae.W_dec).sum(1, keepdim=True) * sae.W_dec
    torch.testing.assert_close(sae.W_dec.grad, expected)


def test_gradients_reach_the_embedding_through_active_latents_only() -> None:
    torch.manual_seed(0)
    sae = TopKSAE(8, 32, 4)
    z = torch.randn(5, 8, requires_grad=True)
    codes = sae.encode(z, "image")
    codes.sum().backward()
    expected = (codes.detach() > 0).float() @ sae.W_enc.detach()
    torch.testing.assert_close(z.grad, expected)


def test_auxiliary_loss_is_that_of_gao_et_al() -> None:
    torch.manual_seed(0)
    sae = TopKSAE(6, 30, 3)
    output = sae(torch.randn(40, 6), torch.randn(40, 6))
    dead = torch.zeros(30, dtype=torch.bool)
    assert sae.auxiliary_loss(output, dead, 4).item() == 0
    dead[[2, 5, 11, 17, 23]] = True
    got = sae.auxiliary_loss(output, dead, 4)
    codes = as_in_the_appendix(output.centered, sae.W_enc[dead], 4)
    error = (output.residual - codes @ sae.W_dec[dead]).square().mean()
    expected = error / output.residual.var(0, correction=0).mean()
    torch.testing.assert_close(got, expected)
    got.backward()
    assert sae.W_enc.grad[~dead].abs().max() == 0
    assert sae.W_enc.grad[dead].abs().max() > 0
    assert sae.b_pre.grad is None


def test_recovers_a_synthetic_dictionary(one_thread: None) -> None:
    """Sparse non-negative combinations of known atoms, as many latents as atoms: mean max cosine at least 0.95."""
    torch.manual_seed(0)
    atoms = F.normalize(torch.randn(64, 32), dim=1)
    samples = 20_000
    active = torch.rand(samples, 64).topk(3, dim=1).indices
    codes = torch.zeros(samples, 64).scatter(1, active, 0.5 + torch.rand(samples, 3))
    data = codes @ atoms
    sae = TopKSAE(32, 64, 3, pre_bias=False)
    optimizer = torch.optim.Adam(sae.parameters(), lr=6e-3)
    for step in range(1500):
        if step == 1200:
            optimizer.param_groups[0]["lr"] = 6e-4
        rows = torch.randint(samples, (256,))
        optimizer.zero_grad()
        sae(data[rows[:128]], data[rows[128:]]).loss.backward()
        sae.project_decoder_gradient()
        optimizer.step()
        sae.normalize_decoder_()
    cosine = (sae.W_dec.detach() @ atoms.T).numpy()
    assert cosine.max(0).mean() >= 0.95
    rows, columns = linear_sum_assignment(-cosine)  # one latent an atom, not one for many
    assert cosine[rows, columns].mean() >= 0.85
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(64))


@pytest.mark.parametrize("dictionary", [TopKSAE(6, 9, 2, center="per_modality", encoder_bias=True), NCLHead(6, 4)])
def test_saved_and_loaded_dictionaries_are_equal(tmp_path: Path, dictionary: Dictionary) -> None:
    dictionary.save_pretrained(tmp_path)
    loaded = type(dictionary).from_pretrained(tmp_path)
    assert loaded.config() == dictionary.config()
    z = torch.randn(7, 6)
    torch.testing.assert_close(loaded.encode(z, "text"), dictionary.encode(z, "text"), rtol=0, atol=0)
    assert type(Dictionary.from_pretrained(tmp_path)) is type(dictionary)


def test_loading_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DictionaryError, match="no dictionary in"):
        TopKSAE.from_pretrained(tmp_path)
    NCLHead(4).save_pretrained(tmp_path)
    with pytest.raises(DictionaryError, match="holds a NCLHead, not a TopKSAE"):
        TopKSAE.from_pretrained(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"no tensors")
    with pytest.raises(DictionaryError, match="no readable dictionary"):
        NCLHead.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architecture": "jumprelu"}, "config.json: architecture='jumprelu' is none of "),
        ({"architecture": ["topk_sae"]}, "is none of"),
        ({"k": 99}, "config.json makes no TopKSAE .*k=99"),
        ({"k": "three"}, "makes no TopKSAE"),
        ({"surprise": 1}, "makes no TopKSAE .*surprise"),
        ({"dim": 7}, r"do not fit their configuration .*W_enc is \(9, 6\), not \(9, 7\)"),
        ({"encoder_bias": False}, "b_enc is unknown"),
    ],
)
def test_configurations_of_others_are_reported_in_one_line(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    TopKSAE(6, 9, 2, encoder_bias=True).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(DictionaryError, match=says) as raised:
        Dictionary.from_pretrained(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", ["", "[]", "3", '{"a"'])
def test_configurations_that_are_no_objects(tmp_path: Path, content: str) -> None:
    TopKSAE(6, 9, 2).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(DictionaryError, match="config.json"):
        Dictionary.from_pretrained(tmp_path)


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    sae = TopKSAE(6, 9, 2)
    with torch.no_grad():
        sae.W_enc[1, 1] = float("inf")
    sae.save_pretrained(tmp_path)
    with pytest.raises(DictionaryError, match="W_enc holds NaN or infinite numbers"):
        Dictionary.from_pretrained(tmp_path)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="k=10 must lie between 1 and the 8 latents"):
        TopKSAE(8, k=10)
    with pytest.raises(ValueError, match="center"):
        TopKSAE(8, k=2, center="both")  # type: ignore[arg-type]
