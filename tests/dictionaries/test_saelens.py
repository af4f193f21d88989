import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmmono.core.errors import DictionaryError
from mmmono.dictionaries import NCLHead, TopKSAE
from mmmono.dictionaries.saelens import export_to_saelens, import_from_saelens
from tests.dictionaries.test_family import made as made_sae
from tests.dictionaries.test_family import pairs, train


@pytest.mark.parametrize("encoder_bias", [False, True])
def test_saelens_loads_what_we_export(tmp_path: Path, encoder_bias: bool) -> None:
    sae_lens = pytest.importorskip("sae_lens", reason="the dev extra brings sae-lens")
    torch.manual_seed(0)
    sae = TopKSAE(16, 40, 5, encoder_bias=encoder_bias)
    with torch.no_grad():
        sae.W_enc += 0.1 * torch.randn_like(sae.W_enc)
        sae.b_pre += torch.randn_like(sae.b_pre)
        if sae.b_enc is not None:
            sae.b_enc += 0.1 * torch.randn_like(sae.b_enc)
    export_to_saelens(sae, tmp_path, "clip_vit_b32")
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    assert theirs.cfg.metadata.model_name == "clip_vit_b32"
    z = torch.randn(25, 16)
    codes = sae.encode(z, "image")
    torch.testing.assert_close(theirs.encode(z), codes)
    torch.testing.assert_close(theirs.decode(codes), sae.decode(codes, "image"))
    back = import_from_saelens(tmp_path)
    torch.testing.assert_close(back.encode(z, "text"), codes)
    torch.testing.assert_close(back.decode(codes, "text"), sae.decode(codes, "text"))


def test_what_has_no_counterpart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DictionaryError, match=r"center=pooled"):
        export_to_saelens(TopKSAE(8, k=2, center="per_modality"), tmp_path)
    with pytest.raises(DictionaryError, match="no SAE of SAELens"):
        import_from_saelens(tmp_path)
    export_to_saelens(TopKSAE(8, k=2), tmp_path)
    config = tmp_path / "cfg.json"
    config.write_text(config.read_text().replace('"topk"', '"transcoder"'))
    with pytest.raises(DictionaryError, match="architecture='transcoder'"):
        import_from_saelens(tmp_path)
    with pytest.raises(DictionaryError, match="SAELens has no architecture for a ncl dictionary"):
        export_to_saelens(NCLHead(8, 6), tmp_path / "head")  # type: ignore[arg-type]
    assert not (tmp_path / "head").exists()


def theirs(folder: Path, config: dict[str, Any], change: Callable[[dict[str, Tensor]], Any] = lambda _: None) -> Path:
    """A folder as SAELens lays it out, with decoder rows of any length."""
    torch.manual_seed(0)
    weights = {
        "W_enc": torch.randn(6, 10),
        "W_dec": torch.randn(10, 6),
        "b_enc": torch.randn(10),
        "b_dec": torch.randn(6),
    }
    change(weights)
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


V6 = {"architecture": "topk", "d_in": 6, "d_sae": 10, "k": 3, "dtype": "float32", "device": "cpu"}
V6 |= {"metadata": {"sae_lens_version": "6.54.12"}}
V3 = {"d_in": 6, "d_sae": 10, "dtype": "torch.float32", "device": "cpu", "model_name": "x", "hook_name": "h"}
V3 |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}, "sae_lens_training_version": "3.20.0"}
V3 |= {"context_size": 8, "dataset_path": "d", "hook_layer": 0, "hook_head_index": None, "prepend_bos": True}
V5 = {**V3, "architecture": "standard", "activation_fn": "topk", "normalize_activations": "none"}
V5 |= {"finetuning_scaling_factor": False, "sae_lens_training_version": "5.10.0"}
del V5["activation_fn_str"]
READ: dict[str, dict[str, Any]] = {
    "3": V3,
    "4, architecture given": {**V3, "architecture": "standard", "normalize_activations": False},
    "5": V5,
    "5, named topk": {**V5, "architecture": "topk"},
    "5, b_dec on the output alone": {**V5, "apply_b_dec_to_input": False},
    "6": V6,
    "6, b_dec on the output alone": {**V6, "apply_b_dec_to_input": False},
    "6, codes by decoder length": {**V6, "rescale_acts_by_decoder_norm": True},
    "6, both": {**V6, "rescale_acts_by_decoder_norm": True, "apply_b_dec_to_input": False},
    "6, all defaults given": {**V6, "normalize_activations": "none", "reshape_activations": "none"},
}


@pytest.mark.parametrize("config", READ.values(), ids=READ)
def test_codes_are_those_saelens_gives_whatever_the_version(tmp_path: Path, config: dict[str, Any]) -> None:
    sae_lens = pytest.importorskip("sae_lens", reason="the dev extra brings sae-lens")
    folder = theirs(tmp_path / "sae", config)
    reference, ours = sae_lens.SAE.load_from_disk(folder), import_from_saelens(folder)
    z = torch.nn.functional.normalize(torch.randn(20, 6), dim=1)
    theirs_codes = reference.encode(z).detach()
    codes = ours.encode(z, "image")
    torch.testing.assert_close(codes, theirs_codes, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        ours.decode(codes, "image"), reference.decode(theirs_codes).detach(), atol=1e-5, rtol=1e-5
    )


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "StandardSAE": {},
    "TopKSAE": {"k": 3, "rescale_acts_by_decoder_norm": True},
    "JumpReLUSAE": {},
    "GatedSAE": {},
    "MatchingPursuitSAE": {"residual_threshold": 0.3, "max_iterations": 4},
    "BatchTopKTrainingSAE": {"k": 2.0, "rescale_acts_by_decoder_norm": True},
    "MatryoshkaBatchTopKTrainingSAE": {"k": 2.0, "matryoshka_widths": [4, 10], "rescale_acts_by_decoder_norm": False},
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "more",
    [{}, {"apply_b_dec_to_input": False}, {"normalize_activations": "layer_norm"}, {"dtype": "bfloat16"}],
    ids=["plain", "b_dec on the output alone", "layer norm", "bfloat16"],
)
def test_what_saelens_saves_encodes_as_it_does_there(tmp_path: Path, architecture: str, more: dict[str, Any]) -> None:
    sae_lens = pytest.importorskip("sae_lens", reason="the dev extra brings sae-lens")
    torch.manual_seed(0)
    made = getattr(sae_lens, architecture)
    sae = made(getattr(sae_lens, f"{architecture}Config")(d_in=6, d_sae=10, **ARCHITECTURES[architecture], **more))
    with torch.no_grad():
        for p in sae.parameters():  # decoder rows of any length, except where the library needs unit norm
            p.copy_(0.5 * torch.randn_like(p))
        if architecture.startswith("Match"):
            sae.W_dec.data /= sae.W_dec.norm(dim=1, keepdim=True)
        if hasattr(sae, "threshold"):
            sae.threshold.data = 0.3 * torch.rand_like(sae.threshold)
    training = "Training" in architecture
    if training:
        sae.topk_threshold.fill_(0.2)
        sae.save_inference_model(tmp_path)
        sae_lens_read = sae_lens.SAE.load_from_disk(tmp_path)
    else:
        sae.save_model(tmp_path)
        sae_lens_read = sae_lens.SAE.load_from_disk(tmp_path, dtype="float32")
    z = torch.nn.functional.normalize(torch.randn(20, 6), dim=1)
    if training and more.get("dtype") == "bfloat16":
        sae_lens_read = sae_lens_read.to(torch.float32)
    expected = sae_lens_read.encode(z).detach()
    assert (expected > 0).any()
    ours = import_from_saelens(tmp_path)
    torch.testing.assert_close(ours.encode(z, "text"), expected, atol=1e-5, rtol=1e-5)
    if "layer_norm" in more.values():
        assert not ours.decodes
        with pytest.raises(DictionaryError, match="normalize_activations='layer_norm'"):
            ours.decode(expected, "text")
    else:
        torch.testing.assert_close(
            ours.decode(expected, "text"), sae_lens_read.decode(expected).detach(), atol=1e-5, rtol=1e-5
        )
    if training and "dtype" not in more:  # a checkpoint of the training itself has its own architecture and threshold
        sae.save_model(tmp_path / "checkpoint")
        again = import_from_saelens(tmp_path / "checkpoint")
        torch.testing.assert_close(again.encode(z, "text"), expected, atol=1e-5, rtol=1e-5)


def test_scaled_inputs_need_their_scale(tmp_path: Path) -> None:
    """Folded in as SAELens' `fold_activation_norm_scaling_factor` does."""
    sae_lens = pytest.importorskip("sae_lens", reason="the dev extra brings sae-lens")
    folder = theirs(tmp_path, {**V6, "normalize_activations": "expected_average_only_in"})
    with pytest.raises(DictionaryError, match="expected_average_only_in.*dictionary.input_scale"):
        import_from_saelens(folder)
    with pytest.raises(DictionaryError, match="input_scale=0"):
        import_from_saelens(folder, input_scale=0)
    reference = sae_lens.SAE.load_from_disk(folder)
    reference.fold_activation_norm_scaling_factor(2.5)
    ours = import_from_saelens(folder, input_scale=2.5)
    z = torch.randn(20, 6)
    codes = ours.encode(z, "image")
    torch.testing.assert_close(codes, reference.encode(z).detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.decode(codes, "image"), reference.decode(codes).detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("at_input", [True, False])
def test_a_checkpoint_of_a_training_on_scaled_inputs_brings_their_scale(
    tmp_path: Path, architecture: str, at_input: bool
) -> None:
    """`SAETrainer.save_checkpoint` puts an `activation_scaler.json` beside the SAE; the library folds it in at the end."""
    sae_lens = pytest.importorskip("sae_lens", reason="the dev extra brings sae-lens")
    from sae_lens.training.activation_scaler import ActivationScaler

    torch.manual_seed(0)
    made = getattr(sae_lens, architecture)
    config = getattr(sae_lens, f"{architecture}Config")
    settings = {**ARCHITECTURES[architecture], "normalize_activations": "expected_average_only_in"}
    sae = made(config(d_in=6, d_sae=10, apply_b_dec_to_input=at_input, **settings))
    with torch.no_grad():
        for p in sae.parameters():
            p.copy_(0.5 * torch.randn_like(p))
        if architecture.startswith("Match"):
            sae.W_dec.data /= sae.W_dec.norm(dim=1, keepdim=True)
        if hasattr(sae, "threshold"):
            sae.threshold.data = 0.3 * torch.rand_like(sae.threshold)
        if "Training" in architecture:
            sae.topk_threshold.fill_(0.2)
    sae.save_model(tmp_path)
    with pytest.raises(DictionaryError, match="expected_average_only_in.*dictionary.input_scale"):
        import_from_saelens(tmp_path)
    scaler = tmp_path / "activation_scaler.json"
    ActivationScaler(scaling_factor=2.5).save(str(scaler))
    sae.fold_activation_norm_scaling_factor(2.5)
    reference = sae
    if "Training" in architecture:
        sae.save_inference_model(tmp_path / "folded")
        reference = sae_lens.SAE.load_from_disk(tmp_path / "folded")
    z = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
    codes = reference.encode(z).detach()
    assert (codes > 0).any()
    for ours in (import_from_saelens(tmp_path), import_from_saelens(tmp_path, input_scale=2.5)):
        torch.testing.assert_close(ours.encode(z, "image"), codes, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.decode(codes, "image"), reference.decode(codes).detach(), atol=1e-5, rtol=1e-5)
    for value in ("true", '"2"', "0", "NaN", "Infinity"):
        scaler.write_text(f'{{"scaling_factor": {value}}}')
        with pytest.raises(DictionaryError, match="activation_scaler.json: scaling_factor="):
            import_from_saelens(tmp_path)
    scaler.write_text('{"scaling_factor": null}')
    with pytest.raises(DictionaryError, match="dictionary.input_scale"):
        import_from_saelens(tmp_path)


@pytest.mark.parametrize("kind", ["batch_topk", "matryoshka", "jumprelu", "gated", "l1", "matching_pursuit", "tied"])
def test_saelens_loads_every_kind_that_it_has(tmp_path: Path, kind: str) -> None:
    sae_lens = pytest.importorskip("sae_lens", reason="the dev extra brings sae-lens")
    sae = made_sae(kind)
    train(sae, 30)
    export_to_saelens(sae, tmp_path)
    loaded = sae_lens.SAE.load_from_disk(tmp_path)
    z = pairs(9)[0]
    codes = sae.encode(z, "image").detach()
    assert codes.max() > 0
    torch.testing.assert_close(loaded.encode(z).detach(), codes, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loaded.decode(codes).detach(), sae.decode(codes, "image").detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(import_from_saelens(tmp_path).encode(z, "image"), codes, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = theirs(tmp_path, V6, lambda w: w.update({name: weight.to(dtype) for name, weight in w.items()}))
    stored, sae = load_file(folder / "sae_weights.safetensors"), import_from_saelens(folder)
    assert sae.W_dec.dtype == torch.float32
    assert sae.W_dec.equal(stored["W_dec"].float())


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    **{
        name: ({**V6, "architecture": name}, f"cfg.json: architecture='{name}'")
        for name in ("transcoder", "temporal", "abstopk")
    },
    "another activation": ({**V5, "activation_fn": "tanh-relu"}, "activation_fn='tanh-relu'"),
    "jumprelu without thresholds": ({**V6, "architecture": "jumprelu"}, "threshold is missing"),
    "batchtopk without a threshold": ({**V6, "architecture": "batchtopk"}, "topk_threshold is missing"),
    "gated without gates": ({**V6, "architecture": "gated"}, "b_gate is missing"),
    "scaled inputs": ({**V5, "normalize_activations": True}, "normalize_activations='expected_average_only_in'"),
    "whitened inputs": (
        {**V6, "normalize_activations": "covariance_whitening"},
        "normalize_activations='covariance_whitening'",
    ),
    "heads": ({**V5, "hook_name": "blocks.0.attn.hook_z"}, "reshape_activations='hook_z'"),
    "no width": ({k: v for k, v in V6.items() if k != "d_in"}, "cfg.json: it has no d_in"),
    "no k": ({k: v for k, v in V6.items() if k != "k"}, "cfg.json: it has no k"),
    "k of another type": ({**V6, "k": "3"}, "k='3' is no whole number"),
    "too large a k": ({**V6, "k": 11}, "k=11 is more than its d_sae=10"),
    "a flag of another type": ({**V6, "apply_b_dec_to_input": "yes"}, "apply_b_dec_to_input='yes'"),
    "another width": ({**V6, "d_in": 7}, r"W_enc is \(6, 10\), not \(7, 10\)"),
}


@pytest.mark.parametrize(("config", "says"), REFUSED.values(), ids=REFUSED)
def test_configurations_without_a_counterpart_name_file_and_field(
    tmp_path: Path, config: dict[str, Any], says: str
) -> None:
    with pytest.raises(DictionaryError, match=says) as raised:
        import_from_saelens(theirs(tmp_path, config))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w.pop("b_enc"), "b_enc is missing"),
        (lambda w: w.update(threshold=torch.ones(10)), "threshold is unknown"),
        (lambda w: w.update(scaling_factor=torch.full((10,), 2.0)), "scaling_factor scales the codes"),
        (lambda w: w["W_dec"].fill_(float("nan")), "W_dec holds NaN"),
        (lambda w: w.update(W_enc=w["W_enc"].T.contiguous()), r"W_enc is \(10, 6\)"),
        (lambda w: w.update(W_dec=(100 * w["W_dec"]).to(torch.int8)), "W_dec holds int8, not floating-point numbers"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], Any], says: str
) -> None:
    with pytest.raises(DictionaryError, match=says):
        import_from_saelens(theirs(tmp_path, V6, change))


def test_a_scaling_by_one_and_a_decoder_row_of_zeros(tmp_path: Path) -> None:
    folder = theirs(tmp_path, V6, lambda w: w.update(scaling_factor=torch.ones(10)))
    assert import_from_saelens(folder).encoding.k == 3
    theirs(tmp_path, {**V6, "rescale_acts_by_decoder_norm": True}, lambda w: w["W_dec"][2].zero_())
    with pytest.raises(DictionaryError, match="rows of length zero"):
        import_from_saelens(tmp_path)


def test_files_that_are_broken(tmp_path: Path) -> None:
    theirs(tmp_path, V6)
    for head, says in (
        (b"version https://git-lfs.github.com/spec/v1", "a git-lfs pointer"),
        (b"{}", "no whole safetens"),
    ):
        (tmp_path / "sae_weights.safetensors").write_bytes(head)
        with pytest.raises(DictionaryError, match=f"sae_weights.safetensors is {says}"):
            import_from_saelens(tmp_path)
    for content in ("", "[]", "{", "3"):
        (tmp_path / "cfg.json").write_text(content)
        with pytest.raises(DictionaryError, match="cfg.json"):
            import_from_saelens(tmp_path)


VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-2, 12)
    | st.floats()
    | st.sampled_from(["topk", "none", "relu", {}, [], {"k": 3}])
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(base=st.sampled_from([V3, V5, V6]), changes=st.dictionaries(st.sampled_from([*V6, *V5]), VALUES, max_size=4))
def test_any_configuration_is_read_or_reported_in_one_line(
    tmp_path: Path, base: dict[str, Any], changes: dict[str, Any]
) -> None:
    message = ""
    try:
        sae = import_from_saelens(theirs(tmp_path, {**base, **changes}))
        assert sae.encode(torch.randn(2, 6), "text").shape == (2, 10)
    except DictionaryError as error:
        message = str(error)
    assert "\n" not in message
