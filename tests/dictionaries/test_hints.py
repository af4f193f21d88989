"""`dictionary.kind`, `k` and `input_scale` are taken, or refused with the reason: never ignored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mmmono.core.errors import DictionaryError
from mmmono.dictionaries import TopKSAE
from mmmono.dictionaries.foreign_files import Hints
from mmmono.dictionaries.l1_sae import L1SAE
from mmmono.dictionaries.pretrained import PretrainedSAE
from mmmono.dictionaries.readers.reading import read_dictionary
from mmmono.dictionaries.saelens import export_to_saelens
from tests.dictionaries.test_readers import (
    NAME,
    D,
    K,
    N,
    batch_topk_file,
    msae_file,
    overcomplete_file,
    saved,
    sparse_coder,
)


def own(folder: Path) -> Path:
    TopKSAE(D, N, K).save_pretrained(folder)
    return folder


def kept(folder: Path) -> Path:
    coder(folder)
    read_dictionary(folder).save_pretrained(folder / "kept")
    return folder / "kept"


def coder(folder: Path) -> Path:
    sparse_coder(folder)
    return folder


def lens(folder: Path) -> Path:
    export_to_saelens(TopKSAE(D, N, K), folder)
    return folder


def lens_l1(folder: Path) -> Path:
    export_to_saelens(L1SAE(D, N), folder)
    return folder


def learned(folder: Path) -> Path:
    return saved(folder / "ae.pt", batch_topk_file())


def overcomplete(folder: Path) -> Path:
    save_file(overcomplete_file(), folder / "mine.safetensors")
    return folder / "mine.safetensors"


def msae(folder: Path) -> Path:
    return saved(folder / NAME, msae_file())


def msae_relu(folder: Path) -> Path:
    return saved(folder / f"{N}_{D}_ReLU_003_False_False_0.0_x.pth", msae_file())


Make = Callable[[Path], Path]
USELESS: list[tuple[Make, dict[str, Any], str]] = [
    (own, {"k": 2}, "k=2"),
    (kept, {"k": 2}, "k=2"),
    (lens_l1, {"k": 2}, "k=2"),
    (learned, {"kind": "BatchTopKSAE", "k": 2}, "k=2"),
    (overcomplete, {"kind": "SAE", "k": 2}, "k=2"),
    (msae_relu, {"k": 2}, "k=2"),
    *((make, {"kind": "TopKSAE"}, "kind=TopKSAE") for make in (own, kept, lens, coder, msae)),
    *((make, {"input_scale": 2.0}, "input_scale=2.0") for make in (own, kept, coder, msae)),
    (learned, {"kind": "AutoEncoderTopK", "input_scale": 2.0}, "input_scale=2.0"),
    (overcomplete, {"kind": "SAE", "input_scale": 2.0}, "input_scale=2.0"),
]


@pytest.mark.parametrize(("make", "given", "says"), USELESS)
def test_an_option_that_changes_nothing_is_refused(
    tmp_path: Path, make: Make, given: dict[str, Any], says: str
) -> None:
    name = says.partition("=")[0]
    with pytest.raises(DictionaryError, match=rf"^dictionary\.{says} .*; give dictionary\.{name}=null$"):
        read_dictionary(make(tmp_path), Hints(**given))


TAKEN: list[tuple[Make, dict[str, Any]]] = [
    (lens, {"k": 2}),
    (coder, {"k": 2}),
    (msae, {"k": 2}),
    (learned, {"kind": "AutoEncoderTopK", "k": 2}),
    (overcomplete, {"kind": "MpSAE", "k": 2}),
    (kept, {"k": K}),
]


@pytest.mark.parametrize(("make", "given"), TAKEN)
def test_an_option_that_applies_is_taken(tmp_path: Path, make: Make, given: dict[str, Any]) -> None:
    sae = read_dictionary(make(tmp_path), Hints(**given))
    assert isinstance(sae, PretrainedSAE)
    assert sae.encoding.k == given["k"]
    assert (sae.encode(torch.randn(9, D), "image") > 0).sum(1).max() <= given["k"]


@pytest.mark.parametrize(
    ("given", "says"),
    [({"k": 0}, "k=0"), ({"k": -1}, "k=-1"), ({"k": 2.5}, "k=2.5"), ({"input_scale": 0}, "input_scale=0")],
)
def test_an_impossible_value_is_refused_and_not_dropped(given: dict[str, Any], says: str) -> None:
    with pytest.raises(DictionaryError, match=rf"dictionary\.{says} .*: give"):
        Hints(**given)
