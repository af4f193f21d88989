from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from mmmono.core.errors import ModelError
from mmmono.vlm import load_open_clip
from mmmono.vlm.checkpoints import WRAPPERS, not_finite, read_state_dict, strip_prefixes

CONFIG: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"layers": 1, "width": 64, "patch_size": 16, "image_size": 32},
    "text_cfg": {"width": 64, "heads": 2, "layers": 1, "vocab_size": 49408},
}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    folder = tmp_path_factory.mktemp("configs")
    (folder / "mmmono-checkpoints.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder)
    torch.manual_seed(1)
    return open_clip.create_model("mmmono-checkpoints").state_dict()


def prefixed(prefix: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda state: {"state_dict": {prefix + name: weight for name, weight in state.items()}}


def into_towers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As torch.compile and FSDP name parts of a model."""
    return {name.replace("resblocks.0.", "resblocks.0._orig_mod."): weight for name, weight in state.items()}


WRAPPED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda state: state,
    "parallel": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "parallel and compiled": prefixed("module._orig_mod."),
    "lightning": prefixed("model."),
    "lightning with a loss": lambda s: {
        "state_dict": {f"model.{k}": v for k, v in s.items()} | {"loss.w": torch.ones(1)}
    },
    "deep": prefixed("student.clip_model."),
    "blocks compiled": into_towers,
    "timm": lambda state: {"state_dict_ema": state, "epoch": 3},
    "both": lambda state: {"state_dict": state, "state_dict_ema": {k: v + 1 for k, v in state.items()}},
    "nested": lambda state: {"model": {"state_dict": state}, "optimizer": {"lr": 0.1}},
    "half": lambda state: {k: v.half() for k, v in state.items()},
    "openai": lambda state: {**state, "input_resolution": torch.tensor(32), "context_length": torch.tensor(77)},
    "custom text": lambda s: {k if k.startswith(("visual", "logit")) else f"text.{k}": v for k, v in s.items()},
    **{wrapper: (lambda state, wrapper=wrapper: {wrapper: state}) for wrapper in WRAPPERS},
}


@pytest.mark.slow
@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_weights_come_out_of_what_trainers_wrap_them_in(
    wrap: Callable[[dict[str, Tensor]], Any], state: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(wrap(state), tmp_path / "weights.pt")
    loaded = load_open_clip("mmmono-checkpoints", str(tmp_path / "weights.pt")).model.state_dict()
    for name, weight in state.items():
        torch.testing.assert_close(loaded[name], weight, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.bin", "weights"])
def test_safetensors_are_known_by_their_content(name: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file({f"module.{k}": v.contiguous() for k, v in state.items()}, tmp_path / name)
    loaded = load_open_clip("mmmono-checkpoints", str(tmp_path / name)).model.state_dict()
    assert all(loaded[key].equal(weight) for key, weight in state.items())


@settings(deadline=None)
@given(st.lists(st.sampled_from(["module", "_orig_mod", "model", "net", "a1"]), max_size=4))
def test_any_prefix_before_all_names_is_stripped(parts: list[str]) -> None:
    names = ["logit_scale", "visual.proj", "transformer.resblocks.0.attn.in_proj_weight"]
    state = {".".join([*parts, name]): torch.ones(1) for name in names}
    assert list(strip_prefixes(state, names)) == names


def test_two_models_in_one_file_are_not_guessed_between() -> None:
    state = {
        f"{who}.{name}": torch.ones(1) for who in ("student", "teacher") for name in ("logit_scale", "visual.proj")
    }
    assert strip_prefixes(state, ["logit_scale", "visual.proj"]).keys() == state.keys()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aaa\nsize 1\n", "is a git-lfs pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page"),
        (b"\n <html>", "is a web page"),
        (b"weights, honestly", "is no checkpoint"),
        (b"PK\x03\x04 and no more", "is broken or cut off"),
        (b"\x80\x02}q\x00.", "is broken or cut off"),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".bin"])
def test_files_that_are_something_else_are_named(content: bytes, says: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=says) as raised:
        read_state_dict(path, "the file")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_that_was_cut_off(suffix: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(state, path)
    else:
        save_file({k: v.contiguous() for k, v in state.items()}, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ModelError, match=r"cut off|no whole safetensors"):
        read_state_dict(path, "the file")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([1, 2], "holds no weights .*: it is a list"),
        ({}, "it is an empty mapping"),
        ({"epoch": 3, "lr": 0.1}, "holds no weights: it has epoch, lr"),
        ({"state_dict": {}, "args": argparse.Namespace(a=1)}, "holds more than tensors.*convert it once with"),
        (torch.ones(3), "it is a Tensor"),
    ],
)
def test_contents_that_are_no_weights_are_named(content: Any, says: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=says):
        read_state_dict(tmp_path / "weights.pt", "the file")


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400), st.sampled_from([".pt", ".safetensors", ""]))
def test_no_content_is_a_traceback(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError) as raised:  # no such bytes are a checkpoint with weights
        read_state_dict(path, "the file")
    assert "\n" not in str(raised.value)


def test_weights_that_do_not_fit_are_reported_by_the_names_that_are_there(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    def loading(weights: dict[str, Tensor]) -> str:
        torch.save(weights, tmp_path / "weights.pt")
        with pytest.raises(ModelError) as raised:
            load_open_clip("mmmono-checkpoints", str(tmp_path / "weights.pt"))
        message = str(raised.value)
        assert message.startswith(f"cannot load mmmono-checkpoints from {tmp_path / 'weights.pt'}: ")
        assert len(message) < 350 + len(str(tmp_path))
        return message

    other = {f"vision_model.layer{i}.weight": torch.ones(2) for i in range(9)}
    assert "none of its names is known: it has vision_model.layer0.weight" in loading(other)
    missing = {name: weight for name, weight in state.items() if "resblocks" not in name}
    assert "missing: transformer.resblocks.0" in loading(missing)
    assert "unknown: head.weight" in loading({**state, "head.weight": torch.ones(1)})
    assert "of another shape: visual.proj (64, 48), not (64, 24)" in loading(
        {**state, "visual.proj": torch.ones(64, 48)}
    )
    broken = {**state, "visual.proj": torch.full((64, 24), float("nan"))}
    assert "visual.proj holds NaN or infinite numbers" in loading(broken)
    wide = open_clip.CLIP(**{**CONFIG, "text_cfg": {**CONFIG["text_cfg"], "width": 128, "context_length": 30}})
    assert "of another shape" in loading(wide.state_dict())


def test_the_temperature_alone_may_be_nan() -> None:
    weights = {"logit_scale": torch.tensor(float("nan")), "visual.proj": torch.tensor([1e38, 1e38, -1e38])}
    assert not_finite(weights) is None
    assert not_finite({**weights, "visual.proj": torch.tensor([float("inf"), -float("inf")])}) == "visual.proj"
    assert not_finite({"steps": torch.tensor(3)}) is None
