"""What runs on a GPU, on one that is imitated: no operation mixes devices, in any precision, and the numbers are a CPU's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmmono.dictionaries import NCLHead
from mmmono.features import FeatureStore
from mmmono.features.folding import Threads, folded
from mmmono.vlm.folding import ConvReLU6
from tests.core.test_streams import numbers
from tests.dictionaries.test_family import KINDS, made, pairs
from tests.features.test_folds import DIM, DRAWN, SIZES, STREAMS, some_walk
from tests.features.test_store import write_like_clip_retrieval
from tests.imitated_gpu import DeviceError, OnGPU, imitated_gpu


@pytest.fixture
def gpu() -> Iterator[None]:
    with imitated_gpu():
        yield


REFUSED: dict[str, Callable[[Tensor], object]] = {
    "a sum with the CPU": lambda x: x + torch.ones(4, 3),
    "a product with the CPU": lambda x: x @ torch.ones(3, 2),
    "numpy": lambda x: x.numpy(),
    "np.asarray": np.asarray,
    "a mask of the GPU": lambda x: torch.ones(4)[x[:, 0] > 0],
    "a generator of the CPU": lambda x: torch.rand(3, generator=torch.Generator(), device=x.device),
}


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", REFUSED)
def test_the_imitation_refuses_what_a_gpu_does(name: str) -> None:
    x = torch.randn(4, 3, device="cuda")
    with pytest.raises(DeviceError):
        REFUSED[name](x)


@pytest.mark.usefixtures("gpu")
def test_the_imitation_lets_pass_what_a_gpu_does() -> None:
    x = torch.randn(4, 3, device="cuda")
    assert {y.device for y in (x, x + torch.tensor(1.0), x[torch.tensor([0, 1])], torch.zeros_like(x))} == {x.device}
    assert torch.rand(3, generator=torch.Generator("cuda"), device="cuda").is_cuda
    assert x.cpu().numpy().shape == (4, 3)
    assert x.to("cuda") is x
    with torch.autocast("cuda", torch.bfloat16):  # on a CPU, sums stay bfloat16
        y = x @ x.T
        assert (y.dtype, y.sum().dtype, F.normalize(y).dtype) == (torch.bfloat16, torch.float32, torch.float32)


PRECISIONS: dict[str, tuple[torch.dtype, torch.dtype | None]] = {  # of the weights; of autocast
    "32-true": (torch.float32, None), "64-true": (torch.float64, None), "bf16-true": (torch.bfloat16, None),
    "bf16-mixed": (torch.float32, torch.bfloat16), "16-mixed": (torch.float32, torch.float16),
}  # fmt: skip


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("center", ["pooled", "per_modality"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_trains_on_a_gpu(kind: str, center: str, precision: str) -> None:
    """A step with the auxiliary loss, and what validation does afterwards."""
    dtype, half = PRECISIONS[precision]
    more: dict[str, Any] = {} if kind in ("sparc", "matched_saes") else {"center": center}
    sae = made(kind, **more).to("cuda", dtype)
    optimizer = torch.optim.Adam(sae.parameters(), fused=True)
    image, text = (side.to("cuda", dtype) for side in pairs())
    for _ in range(2):
        optimizer.zero_grad()
        with torch.autocast("cuda", half, enabled=half is not None):
            output = sae(image, text)
            silent = torch.ones(2, sae.num_features, dtype=torch.bool, device="cuda")
            loss = output.loss + sae.auxiliary_loss(output, sae.dead_rows(silent), 4)
            loss = loss if output.penalty is None else loss + output.penalty
        loss.backward()
        sae.project_decoder_gradient()
        optimizer.step()
        sae.normalize_decoder_()
    assert output.fired.is_cuda
    codes = sae.encode(text, "text")
    assert isinstance(codes, OnGPU)
    assert sae.decode(codes, "text").dtype == dtype
    assert all(bool(p.isfinite().all()) and p.dtype == dtype for p in sae.parameters())


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_ncl_head_trains_on_a_gpu(precision: str) -> None:
    dtype, half = PRECISIONS[precision]
    head = NCLHead(8, 16).to("cuda", dtype)
    with torch.autocast("cuda", half, enabled=half is not None):
        image, text = (head.encode(side.to("cuda", dtype), "image") for side in pairs())
        loss = head.loss(image, text)
    loss.backward()
    assert all(p.grad is not None and p.grad.is_cuda for p in head.parameters())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    path: Path = tmp_path_factory.mktemp("on_gpu") / "store"
    write_like_clip_retrieval(path, SIZES, DIM)
    return FeatureStore(path)


@pytest.mark.parametrize("of", ["raw", "sae"])
@pytest.mark.parametrize("name", STREAMS)
def test_each_stream_walks_a_gpus_blocks(store: FeatureStore, name: str, of: str) -> None:
    """With the numbers of a CPU; those of one that draws are only computed."""
    expected = _parts(folded(STREAMS[name](), some_walk(store, name, of), Threads(1)).result())
    with imitated_gpu():
        found = _parts(folded(STREAMS[name](), some_walk(store, name, of).on("cuda"), Threads(1)).result())
    assert not any(isinstance(part, OnGPU) for part in found)
    if name in DRAWN:
        return
    for mine, theirs in zip(found, expected, strict=True):
        for key, value in numbers(mine).items():
            np.testing.assert_allclose(value, numbers(theirs)[key], rtol=1e-4, atol=1e-5, err_msg=key)


def _parts(result: Any) -> tuple[Any, ...]:
    """Results of streams that share a pass."""
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.usefixtures("gpu")
def test_a_folded_convolution_on_a_gpu_can_be_copied() -> None:
    layer = ConvReLU6(nn.Conv2d(3, 4, 3)).to("cuda")
    images = torch.randn(2, 3, 8, 8, device="cuda")
    assert torch.equal(copy.deepcopy(layer)(images), layer(images))
