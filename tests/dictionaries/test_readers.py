"""Dictionaries that other libraries saved encode here as they do there."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from mmmono.core.errors import DictionaryError, ModelError
from mmmono.dictionaries import Dictionary, TopKSAE
from mmmono.dictionaries.foreign_files import Hints
from mmmono.dictionaries.pretrained import PretrainedSAE
from mmmono.dictionaries.readers import reading
from mmmono.dictionaries.readers.reading import find_dictionary, is_on_hub, read_dictionary
from mmmono.dictionaries.readers.trained_on import TrainedOn, read_trained_on
from mmmono.dictionaries.saelens import export_to_saelens
from tests.vlm.hub_server import Hub, hub_server

D, N, K = 6, 12, 3
Weights = dict[str, Tensor]


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got.detach(), expected.detach(), atol=1e-5, rtol=1e-5)


def z(count: int = 20) -> Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def shaken(model: Any) -> Any:
    """Random weights and biases, so that every tensor matters, with decoder rows of any length."""
    torch.manual_seed(0)
    for p in model.parameters():
        p.copy_(0.5 * torch.randn_like(p))
    return model


# dictionary_learning

DL = ["AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "JumpReluAutoEncoder"]
DL += ["AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE"]


@pytest.mark.parametrize("kind", DL)
def test_what_dictionary_learning_saves(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("dictionary_learning", reason="dictionary-learning of the package index is not installed")
    from dictionary_learning import dictionary
    from dictionary_learning.trainers import batch_top_k, matryoshka_batch_top_k, top_k
    from dictionary_learning.utils import load_dictionary

    modules = (dictionary, top_k, batch_top_k, matryoshka_batch_top_k)
    made = next(getattr(module, kind) for module in modules if hasattr(module, kind))
    arguments = {"AutoEncoderTopK": (K,), "BatchTopKSAE": (K,), "MatryoshkaBatchTopKSAE": (K, [4, 8])}.get(kind, ())
    model = shaken(made(D, N, *arguments))
    if hasattr(model, "threshold"):
        model.threshold.data = torch.rand(N) if kind == "JumpReluAutoEncoder" else torch.tensor(0.3)
    trainer = {"dict_class": kind, "k": K} if arguments else {"dict_class": kind}
    (tmp_path / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {}}))
    torch.save(model.state_dict(), tmp_path / "ae.pt")
    reference, ours = load_dictionary(str(tmp_path), "cpu")[0], read_dictionary(tmp_path)
    codes = reference.encode(z())
    assert (codes > 0).any()
    close(ours.encode(z(), "image"), codes)
    close(ours.decode(codes, "image"), reference.decode(codes))


def batch_topk_file(threshold: float | None = 0.3) -> Weights:
    """As dictionary_learning, and the copy of it in sae-for-vlm, save a BatchTopKSAE."""
    torch.manual_seed(0)
    weights = {
        "encoder.weight": torch.randn(N, D),
        "encoder.bias": torch.randn(N),
        "decoder.weight": torch.randn(D, N),
        "b_dec": torch.randn(D),
        "k": torch.tensor(K, dtype=torch.int32),
    }
    return weights if threshold is None else {**weights, "threshold": torch.tensor(threshold)}


def test_a_checkpoint_of_sae_for_vlm(tmp_path: Path) -> None:
    """`trainer_0/checkpoints/ae_100000.pt`, with the configuration a folder above, or without one."""
    run = tmp_path / "batch_top_k_20_x8" / "trainer_0"
    file = run / "checkpoints" / "ae_100000.pt"
    file.parent.mkdir(parents=True)
    w = batch_topk_file()
    torch.save(w, file)
    pre = np.maximum((z() - w["b_dec"]).numpy() @ w["encoder.weight"].numpy().T + w["encoder.bias"].numpy(), 0)
    expected = torch.from_numpy(pre * (pre > 0.3))
    with pytest.raises(DictionaryError, match=r"ae_100000.pt: .*dict_class.*dictionary.kind"):
        read_dictionary(file)
    close(read_dictionary(file, Hints(kind="BatchTopKSAE")).encode(z(), "image"), expected)
    (run / "config.json").write_text(json.dumps({"trainer": {"dict_class": "BatchTopKSAE"}}))
    close(read_dictionary(find_dictionary(str(run), "checkpoints/ae_100000.pt")).encode(z(), "image"), expected)
    (run / "config.json").write_text(json.dumps({"trainer": {"dict_class": "AutoEncoderTopK", "k": K}}))
    per_sample = read_dictionary(file).encode(z(), "image")
    assert ((per_sample > 0).sum(1) <= K).all()
    assert (read_dictionary(file, Hints(k=1)).encode(z(), "image") > 0).sum(1).max() == 1


def test_what_names_of_tensors_tell(tmp_path: Path) -> None:
    """A nested BatchTopK, JumpReLU and ReLU without a configuration, by numpy."""
    torch.manual_seed(0)
    w: Weights = {
        "W_enc": torch.randn(D, N),
        "b_enc": torch.randn(N),
        "W_dec": torch.randn(N, D),
        "b_dec": torch.randn(D),
    }
    nested = {**w, "k": torch.tensor(K), "threshold": torch.tensor(0.4), "group_sizes": torch.tensor([4, 8])}
    torch.save(nested, tmp_path / "ae.pt")
    pre = ((z() - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    close(read_dictionary(tmp_path / "ae.pt").encode(z(), "text"), pre * (pre > 0.4))
    torch.save({**w, "threshold": torch.full((N,), 0.4)}, tmp_path / "ae.pt")
    pre = (z() @ w["W_enc"] + w["b_enc"]).relu()
    close(read_dictionary(tmp_path / "ae.pt").encode(z(), "text"), pre * (pre > 0.4))
    w = {"encoder.weight": torch.randn(N, D), "encoder.bias": torch.randn(N), "decoder.weight": torch.randn(D, N)}
    torch.save({**w, "decoder.bias": torch.ones(D)}, tmp_path / "ae.pt")
    close(read_dictionary(tmp_path / "ae.pt").encode(z(), "text"), F.linear(z(), *list(w.values())[:2]).relu())


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), MemoryError()])
def test_an_error_of_the_system_is_none_of_the_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(reading, "_read_file", fail)
    torch.save({"W_enc": torch.zeros(D, N)}, tmp_path / "ae.pt")
    with pytest.raises(type(error)) as raised:
        read_dictionary(tmp_path / "ae.pt")
    assert raised.value is error


# sparsify


@pytest.mark.parametrize("activation", ["topk", "groupmax"])
def test_what_sparsify_saves(tmp_path: Path, activation: str) -> None:
    sparsify = pytest.importorskip("sparsify", reason="eai-sparsify of the package index is not installed")
    config = sparsify.SparseCoderConfig(num_latents=N, k=K, activation=activation)
    model = shaken(sparsify.SparseCoder(D, config))
    model.save_to_disk(tmp_path)
    values, indices, _ = sparsify.SparseCoder.load_from_disk(tmp_path).encode(z())
    expected = torch.zeros(20, N).scatter(1, indices, values)
    ours = read_dictionary(tmp_path)
    close(ours.encode(z(), "image"), expected)
    close(ours.decode(expected, "image"), expected @ model.W_dec + model.b_dec)  # its own needs a GPU in some versions


def sparse_coder(folder: Path, **config: Any) -> Weights:
    """Files as sparsify writes them."""
    torch.manual_seed(0)
    weights = {
        "encoder.weight": torch.randn(N, D),
        "encoder.bias": torch.randn(N),
        "W_dec": torch.randn(N, D),
        "b_dec": torch.randn(D),
    }
    save_file(weights, folder / "sae.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"d_in": D, "num_latents": N, "k": K, **config}))
    return weights


def test_a_sparse_coder_by_numpy(tmp_path: Path) -> None:
    w = {name: tensor.numpy() for name, tensor in sparse_coder(tmp_path).items()}
    pre = np.maximum((z().numpy() - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"], 0)
    expected = np.where(pre >= np.sort(pre, 1)[:, -K, None], pre, 0)
    ours = read_dictionary(tmp_path)
    close(ours.encode(z(), "image"), torch.from_numpy(expected))
    assert ours.atoms is not None
    close(ours.atoms.norm(dim=1), torch.ones(N))
    decoded = expected @ w["W_dec"] + w["b_dec"]
    close(ours.decode(torch.from_numpy(expected), "image"), torch.from_numpy(decoded))


# overcomplete


def overcomplete_installed() -> None:
    """Skip the test without it; give a newer matplotlib what overcomplete 0.3 asks for."""
    matplotlib = pytest.importorskip("matplotlib")
    if not hasattr(matplotlib.cm, "get_cmap"):
        matplotlib.cm.get_cmap = matplotlib.colormaps.get_cmap
    pytest.importorskip("overcomplete", reason="overcomplete of the package index is not installed")


@pytest.mark.parametrize("kind", ["SAE", "TopKSAE", "JumpSAE", "MpSAE"])
@pytest.mark.parametrize("form", ["linear", "tied", "untied"])
def test_what_overcomplete_saves(tmp_path: Path, kind: str, form: str) -> None:
    overcomplete_installed()
    from overcomplete import sae

    model = getattr(sae, kind)(D, N, **{"TopKSAE": {"top_k": K}, "MpSAE": {"k": K}}.get(kind, {}))
    if form != "linear":
        if kind == "MpSAE":
            pytest.skip("matching pursuit has no encoder")
        getattr(model, form)(bias=form == "untied")
    shaken(model)
    model.dictionary.multiplier.data = torch.tensor(0.3)
    model.train()
    model.encode(z())  # normalizes the dictionary
    model.get_dictionary()
    model.eval()
    torch.save(model.state_dict(), tmp_path / "model.pth")
    hints = Hints(kind=None if kind == "JumpSAE" else kind, k=K if kind in ("TopKSAE", "MpSAE") else None)
    ours = read_dictionary(tmp_path / "model.pth", hints)
    expected = model.encode(z())[1]
    if kind == "MpSAE":  # which also keeps negative products, if all are
        expected = expected.relu()
    close(ours.encode(z(), "image"), expected)
    close(ours.decode(expected, "image"), model.decode(expected))


def overcomplete_file() -> Weights:
    torch.manual_seed(0)
    return {
        "encoder.final_block.0.weight": torch.randn(N, D),
        "encoder.final_block.0.bias": torch.randn(N),
        "dictionary._weights": F.normalize(torch.randn(N, D), dim=1),
        "dictionary.multiplier": torch.tensor(0.5),
    }


@pytest.mark.parametrize("kind", ["RATopKSAE", "RAJumpSAE"])
@pytest.mark.parametrize("form", ["linear", "tied", "untied"])
def test_what_overcomplete_saves_of_an_archetypal_dictionary(tmp_path: Path, kind: str, form: str) -> None:
    overcomplete_installed()
    from overcomplete import sae

    torch.manual_seed(1)
    points = torch.randn(20, D)
    model = getattr(sae, kind)(D, N, points=points, **({"top_k": K} if kind == "RATopKSAE" else {}))
    if form != "linear":
        getattr(model, form)(bias=form == "untied")
    shaken(model)
    model.eval()  # which bounds what is added to the archetypes
    torch.save(model.state_dict(), tmp_path / "model.pth")
    ours = read_dictionary(tmp_path / "model.pth", Hints(kind=kind, k=K if kind == "RATopKSAE" else None))
    codes = model.encode(z())[1]
    close(ours.encode(z(), "image"), codes)
    close(ours.decode(codes, "image"), model.decode(codes))


def test_a_batch_topk_of_overcomplete_is_saved_as_a_jump_sae(tmp_path: Path) -> None:
    """As the error says that refuses its state_dict()."""
    overcomplete_installed()
    from overcomplete import sae

    model = shaken(sae.BatchTopKSAE(D, N, top_k=K * 20))
    model.train()
    model.encode(z())
    model.get_dictionary()
    model.eval()
    state = {**model.state_dict(), "thresholds": model.running_threshold.log().expand(N)}
    torch.save(state, tmp_path / "model.pth")
    others = torch.randn(20, D, generator=torch.Generator().manual_seed(6))
    codes = model.encode(others)[1]
    assert (codes > 0).any()
    close(read_dictionary(tmp_path / "model.pth").encode(others, "image"), codes)


def test_an_archetypal_dictionary_by_hand(tmp_path: Path) -> None:
    w = {name: weight for name, weight in overcomplete_file().items() if name != "dictionary._weights"}
    mixture, added, points = torch.randn(N, 20), torch.randn(N, D), torch.randn(20, D)
    w |= {"dictionary.W": mixture, "dictionary.Relax": added, "dictionary.C": points}
    torch.save(w, tmp_path / "model.pth")
    ours = read_dictionary(tmp_path / "model.pth", Hints(kind="RATopKSAE", k=K))
    positive = np.maximum(mixture.numpy(), 0)
    atoms = (positive / positive.sum(1, keepdims=True)) @ points.numpy() + added.numpy()
    codes = ours.encode(z(), "image")
    pre = z().numpy() @ w["encoder.final_block.0.weight"].numpy().T + w["encoder.final_block.0.bias"].numpy()
    largest = np.where(pre >= np.sort(pre, 1)[:, -K, None], np.maximum(pre, 0), 0)
    close(codes, torch.from_numpy(largest))
    close(ours.decode(codes, "image"), torch.from_numpy(largest @ atoms * math.exp(0.5)))


def test_a_state_of_overcomplete_by_hand(tmp_path: Path) -> None:
    w = overcomplete_file()
    save_file(w, tmp_path / "sae.safetensors.safetensors")
    file = tmp_path / "mine.safetensors"
    save_file(w, file)
    pre = F.linear(z(), w["encoder.final_block.0.weight"], w["encoder.final_block.0.bias"]).relu()
    ours = read_dictionary(file, Hints(kind="SAE"))
    close(ours.encode(z(), "image"), pre)
    close(ours.decode(pre, "image"), pre @ w["dictionary._weights"] * math.exp(0.5))


@pytest.mark.parametrize("form", ["tied", "pursuit"])
def test_a_state_of_overcomplete_after_the_last_step_of_training(tmp_path: Path, form: str) -> None:
    """The library normalizes atoms before each use, and so not those that its training leaves; codes depend on it."""
    w = overcomplete_file()
    atoms = w["dictionary._weights"]
    stepped = atoms * (1 + 0.03 * torch.randn(N, 1, generator=torch.Generator().manual_seed(1)))
    states = {"stepped": stepped, "normalized": F.normalize(stepped, dim=1)}
    read = {}
    for name, weights in states.items():
        torch.save(
            {"dictionary._weights": weights, "dictionary.multiplier": torch.tensor(0.0)}, tmp_path / f"{name}.pth"
        )
        hints = Hints(kind="MpSAE" if form == "pursuit" else "SAE", k=4 if form == "pursuit" else None)
        read[name] = read_dictionary(tmp_path / f"{name}.pth", hints)
    close(read["stepped"].encode(z(), "image"), read["normalized"].encode(z(), "image"))
    codes = torch.rand(20, N)
    close(read["stepped"].decode(codes, "image"), codes @ states["normalized"])
    torch.save({"dictionary._weights": 0.5 * atoms, "dictionary.multiplier": torch.tensor(0.0)}, tmp_path / "short.pth")
    close(read_dictionary(tmp_path / "short.pth", Hints(kind="SAE")).decode(codes, "image"), codes @ (0.5 * atoms))


# MSAE

NAME = f"{N}_{D}_TopKReLU_{K}_RW_False_False_0.0_cc3m_ViT-L~14_train_image_2905936_{D}.pth"


def msae_file(**changes: Any) -> dict[str, Any]:
    """The entries that MSAE's training saves, with numpy's numbers where it has them."""
    torch.manual_seed(0)
    model = {
        "pre_bias": torch.randn(D),
        "encoder": torch.randn(D, N),
        "latent_bias": torch.randn(N),
        "decoder": torch.randn(N, D),
        "latents_activation_frequency": torch.zeros(N, dtype=torch.int64),
    }
    return {
        "model": model,
        "mean_center": torch.randn(D),
        "scaling_factor": np.float32(2.5),
        "target_norm": None,
        "epoch": 3,
    } | changes


@pytest.mark.parametrize(
    ("name", "cap", "k"),
    [
        (NAME, 0.0, K),
        (f"{N}_{D}_TopKReLU_{K}_UW_False_False_30.0_x.pt", 30.0, K),
        (f"{N}_{D}_ReLU_003_False_False_0.0_x.pth", 0.0, N),
        (f"{N}_{D}_TopKReLU_{K}_False_False_2.pth", 2.0, K),
        (f"{N}_{D}_TopKReLU_{K}_RW_True_False_0.0_x.pth", 0.0, K),
    ],
)
def test_what_msae_saves(tmp_path: Path, name: str, cap: float, k: int) -> None:
    content = msae_file()
    model = content["model"]
    if "True" in name:
        model["decoder"] = model["encoder"].T.clone()
        torch.save({**content, "model": {n: w for n, w in model.items() if n != "decoder"}}, tmp_path / name)
    else:
        torch.save(content, tmp_path / name)
    inside = (z() - content["mean_center"]) * 2.5
    pre = (inside - model["pre_bias"]) @ model["encoder"] + model["latent_bias"]
    values, indices = pre.topk(k, dim=1)
    codes = torch.zeros(20, N).scatter(1, indices, values.relu())
    codes = cap * (codes / cap).tanh() if cap else codes
    ours = read_dictionary(tmp_path / name)
    close(ours.encode(z(), "image"), codes)
    decoded = (codes @ model["decoder"] + model["pre_bias"]) / 2.5 + content["mean_center"]
    close(ours.decode(codes, "image"), decoded)
    if k == K:
        assert (read_dictionary(tmp_path / name, Hints(k=1)).encode(z(), "image") > 0).sum(1).max() == 1


# What cannot be read


class Evil:
    def __reduce__(self) -> Any:
        return print, ("this ran",)


def saved(file: Path, content: Any) -> Path:
    torch.save(content, file)
    return file


REFUSED: dict[str, tuple[Callable[[Path], Path], Hints, str]] = {
    "a pickle": (lambda f: saved(f / "ae.pt", {"W_dec": Evil()}), Hints(), "pickled objects.*state_dict"),
    "a whole module": (lambda f: saved(f / "ae.pt", TopKSAE(D, k=K)), Hints(), "pickled objects"),
    "a pickle in a model": (
        lambda f: saved(f / NAME, msae_file(mean_center=Evil())),
        Hints(),
        "pickled objects",
    ),
    "no dictionary": (lambda f: saved(f / "ae.pt", [1]), Hints(), "holds a list"),
    "a number among tensors": (lambda f: saved(f / "ae.pt", {"W_dec": 3}), Hints(), "W_dec is a int"),
    "BatchTopK before its threshold": (
        lambda f: saved(f / "ae.pt", batch_topk_file(-1.0)),
        Hints(kind="BatchTopKSAE"),
        "threshold=.-1.0. is none",
    ),
    "BatchTopK without a threshold": (
        lambda f: saved(f / "ae.pt", batch_topk_file(None)),
        Hints(kind="BatchTopKSAE"),
        "threshold is missing",
    ),
    "another class": (lambda f: saved(f / "ae.pt", batch_topk_file()), Hints(kind="Mine"), "dict_class='Mine'"),
    "NaN": (
        lambda f: saved(f / "ae.pt", {**batch_topk_file(), "b_dec": torch.full((D,), float("nan"))}),
        Hints(kind="BatchTopKSAE"),
        "holds NaN or infinite numbers",
    ),
    "too large a k": (lambda f: saved(f / "ae.pt", batch_topk_file()), Hints("AutoEncoderTopK", k=99), "k=99"),
    "half of a file": (lambda f: cut(saved(f / "ae.pt", batch_topk_file())), Hints(), "no whole file"),
    "weights that are transposed": (
        lambda f: saved(f / "ae.pt", {**plain_file(), "encoder.weight": torch.ones(D, N)}),
        Hints(),
        "ae.pt: its tensors do not fit each other .*compare their shapes",
    ),
    "atoms that are no matrix": (
        lambda f: saved(f / "m.pth", {**overcomplete_file(), "dictionary._weights": torch.ones(D)}),
        Hints(kind="SAE"),
        "m.pth: its tensors do not fit each other",
    ),
    "a model that is no mapping": (lambda f: saved(f / NAME, {**msae_file(), "model": None}), Hints(), "do not fit"),
    "a pointer of git-lfs": (lambda f: pointer(f / "ae.pt"), Hints(), "git-lfs pointer.*git lfs pull"),
    "a pointer in a folder": (
        lambda f: (sparse_coder(f), pointer(f / "sae.safetensors"), f)[2],
        Hints(),
        "git-lfs pointer.*git lfs pull",
    ),
    "a name that was changed": (lambda f: saved(f / "mine.pth", msae_file()), Hints(), "does not say how it encodes"),
    "BatchTopK of MSAE": (
        lambda f: saved(f / f"{N}_{D}_BatchTopKReLU_{K}_False_False_0.0_x.pth", msae_file()),
        Hints(),
        "saves no threshold",
    ),
    "MSAE's own normalization": (
        lambda f: saved(f / f"{N}_{D}_TopKReLU_{K}_False_True_0.0_x.pth", msae_file()),
        Hints(),
        "normalize=True",
    ),
    "JumpReLU without thresholds": (
        lambda f: saved(f / f"{N}_{D}_JumpReLU_False_False_0.0_x.pth", msae_file()),
        Hints(),
        "log_threshold is missing",
    ),
    "an activation of MSAE": (
        lambda f: saved(f / f"{N}_{D}_TopKabs_{K}_False_False_0.0_x.pth", msae_file()),
        Hints(),
        "activation=TopKabs",
    ),
    "another width than the name's": (
        lambda f: saved(f / NAME.replace(f"{N}_", "9_", 1), msae_file()),
        Hints(),
        "width",
    ),
    "a scale of zero": (lambda f: saved(f / NAME, msae_file(scaling_factor=0.0)), Hints(), "scaling_factor"),
    "a class overcomplete does not save": (
        lambda f: saved(f / "m.pth", overcomplete_file()),
        Hints(),
        "give dictionary.kind",
    ),
    "a k overcomplete does not save": (
        lambda f: saved(f / "m.pth", overcomplete_file()),
        Hints(kind="TopKSAE"),
        "give dictionary.k",
    ),
    "BatchTopK of overcomplete": (
        lambda f: saved(f / "m.pth", overcomplete_file()),
        Hints(kind="BatchTopKSAE"),
        "running_threshold.*save .*as thresholds: a JumpSAE's",
    ),
    "a deep encoder": (
        lambda f: saved(f / "m.pth", {**overcomplete_file(), "encoder.mlp_blocks.0.0.weight": torch.ones(1)}),
        Hints(kind="SAE"),
        "encoder is not linear",
    ),
    "a transcoder": (lambda f: (sparse_coder(f, transcode=True), f)[1], Hints(), "transcode=True"),
    "a skip connection": (lambda f: (sparse_coder(f, skip_connection=True), f)[1], Hints(), "skip_connection=True"),
    "signed codes": (lambda f: (sparse_coder(f, signed=True), f)[1], Hints(), "signed=True"),
    "groups that do not share": (
        lambda f: (sparse_coder(f, activation="groupmax", k=5), f)[1],
        Hints(),
        "k=5 groups",
    ),
    "quantized weights": (
        lambda f: saved(
            f / "m.pth", {**overcomplete_file(), "dictionary._weights": torch.ones(N, D, dtype=torch.int8)}
        ),
        Hints(kind="SAE"),
        "holds int8, not floating-point numbers",
    ),
    "complex weights": (
        lambda f: saved(f / "ae.pt", {**plain_file(), "decoder.weight": torch.ones(D, N, dtype=torch.complex64)}),
        Hints(),
        "decoder.weight holds complex64, not floating-point numbers",
    ),
    "an empty folder": (lambda f: f, Hints(), "holds no dictionary that can be read"),
    "another file": (lambda f: (f / "ae.bin", (f / "ae.bin").write_bytes(b""))[0], Hints(), "no file of tensors"),
}


def plain_file() -> dict[str, Tensor]:
    """State of dictionary_learning's AutoEncoder."""
    shapes = {"encoder.weight": (N, D), "encoder.bias": (N,), "decoder.weight": (D, N), "bias": (D,)}
    return {name: torch.ones(shape) for name, shape in shapes.items()}


def pointer(file: Path) -> Path:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943\nsize 12345\n")
    return file


def cut(file: Path) -> Path:
    file.write_bytes(file.read_bytes()[:200])
    return file


@pytest.mark.parametrize(("make", "hints", "says"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_reported_in_one_line(
    tmp_path: Path, make: Callable[[Path], Path], hints: Hints, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = make(tmp_path)
    with pytest.raises(DictionaryError, match=says) as raised:
        read_dictionary(found, hints)
    assert "\n" not in str(raised.value)
    assert "this ran" not in capsys.readouterr().out


# Where they lie


def test_a_foreign_dictionary_is_kept_as_ours(tmp_path: Path) -> None:
    sparse_coder(tmp_path)
    ours = read_dictionary(tmp_path)
    ours.save_pretrained(tmp_path / "kept")
    kept = read_dictionary(tmp_path / "kept")
    assert isinstance(kept, PretrainedSAE)
    assert kept.config() == ours.config()
    assert torch.equal(kept.encode(z(), "text"), ours.encode(z(), "text"))


def test_a_dictionary_of_this_project(tmp_path: Path) -> None:
    sae = TopKSAE(D, N, K)
    sae.save_pretrained(tmp_path)
    assert torch.equal(read_dictionary(tmp_path).encode(z(), "text"), sae.encode(z(), "text"))


def test_paths_that_are_nowhere(tmp_path: Path) -> None:
    with pytest.raises(DictionaryError, match="neither a file, nor a folder, nor an id"):
        find_dictionary(str(tmp_path / "nowhere"))
    with pytest.raises(DictionaryError, match="dictionary.file=x is not in"):
        find_dictionary(str(tmp_path), "x")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A hub on this machine, and an empty cache."""
    from huggingface_hub import constants

    with hub_server() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


def put(hub: Hub, folder: Path, where: str) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            hub.files[f"{where}/{file.relative_to(folder).as_posix()}"] = file.read_bytes()


def test_dictionaries_of_the_hub(tmp_path: Path, hub: Hub) -> None:
    sae = TopKSAE(D, N, K)
    export_to_saelens(sae, tmp_path / "lens")
    sae.save_pretrained(tmp_path / "own")
    TrainedOn("clip", "open_clip:x:1", normalize=True).write(tmp_path / "own")
    (tmp_path / "lens" / "activation_scaler.json").write_text('{"scaling_factor": 2.0}')
    (tmp_path / "vlm" / "checkpoints").mkdir(parents=True)
    torch.save(batch_topk_file(), tmp_path / "vlm" / "checkpoints" / "ae_9.pt")
    (tmp_path / "vlm" / "config.json").write_text(json.dumps({"trainer": {"dict_class": "BatchTopKSAE"}}))
    for name in ("lens", "own"):
        put(hub, tmp_path / name, f"org/{name}")
        read: Dictionary = read_dictionary(find_dictionary(f"org/{name}"))
        close(read.encode(z(), "text"), sae.encode(z(), "text"))
    assert read_trained_on(find_dictionary("org/own")) == TrainedOn("clip", "open_clip:x:1", normalize=True)
    assert (find_dictionary("org/lens") / "activation_scaler.json").is_file()
    put(hub, tmp_path / "lens", "org/many/layer_3")
    close(read_dictionary(find_dictionary("org/many", "layer_3")).encode(z(), "text"), sae.encode(z(), "text"))
    found = find_dictionary("org/many", "layer_3/sae_weights.safetensors")
    close(read_dictionary(found).encode(z(), "text"), sae.encode(z(), "text"))
    (tmp_path / "coder").mkdir()
    sparse_coder(tmp_path / "coder")
    put(hub, tmp_path / "coder", "org/coder")
    codes = read_dictionary(tmp_path / "coder").encode(z(), "text")
    close(read_dictionary(find_dictionary("org/coder", "sae.safetensors")).encode(z(), "text"), codes)
    put(hub, tmp_path / "vlm", "org/vlm/x8/trainer_0")
    found = find_dictionary("org/vlm", "x8/trainer_0/checkpoints/ae_9.pt")
    assert (read_dictionary(found).encode(z(), "text") > 0).any()
    with pytest.raises(ModelError, match="no such file: check the name; a repository of several .* dictionary.file"):
        find_dictionary("org/many")
    with pytest.raises(DictionaryError, match="organisation/name, with the folder in it as dictionary.file=layer_3"):
        find_dictionary("org/many/layer_3")
    (tmp_path / "many").mkdir()
    (tmp_path / "lens").rename(tmp_path / "many" / "layer_3")
    with pytest.raises(DictionaryError, match="1 in it hold one, such as layer_3: give that folder"):
        read_dictionary(tmp_path / "many")


def test_a_dictionary_of_an_earlier_commit(tmp_path: Path, hub: Hub) -> None:
    saes = [TopKSAE(D, N, K) for _ in range(2)]
    for number, sae in enumerate(saes):
        sae.save_pretrained(tmp_path / str(number))
        export_to_saelens(sae, tmp_path / str(number) / "saelens")
    put(hub, tmp_path / "0", "org/sae")
    first = hub.commit
    files = {
        f"org/sae/{file.relative_to(tmp_path / '1')}": file for file in (tmp_path / "1").rglob("*") if file.is_file()
    }
    hub.push({name: file.read_bytes() for name, file in files.items()})
    assert is_on_hub(f"org/sae@{first}")
    for file in (None, "saelens", "saelens/sae_weights.safetensors"):
        for address, sae in ((f"org/sae@{first}", saes[0]), ("org/sae", saes[1])):
            close(read_dictionary(find_dictionary(address, file)).encode(z(), "text"), sae.encode(z(), "text"))
