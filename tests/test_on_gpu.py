"""What runs on a GPU, on one that is imitated: no operation mixes devices, in any precision, and the numbers are a CPU's."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from experiments import train
from mmmono.case_studies.adversarial.requests import Request
from mmmono.case_studies.adversarial.victims import Llava
from mmmono.core.errors import ConfigError
from mmmono.core.gpu_memory import enough_gpu_memory
from mmmono.dictionaries import MetricHistory, NCLHead, SAEModule, selection
from mmmono.dictionaries.pools import RowReader
from mmmono.dictionaries.resume_checkpoint import ResumeCheckpoint
from mmmono.features import FeatureStore, extract_features
from mmmono.features.folding import Threads, folded
from mmmono.pipeline.devices import named_device, several_devices
from mmmono.pipeline.entrypoint import entrypoint
from mmmono.vlm.folding import ConvReLU6
from tests.core.test_streams import numbers
from tests.dictionaries.test_family import KINDS, made, pairs
from tests.dictionaries.test_resuming import Dies
from tests.dictionaries.test_training import kind_module, made_data, reopened
from tests.fakes import ColorEncoder, ColorPairs
from tests.features.test_folds import DIM, DRAWN, SIZES, STREAMS, some_walk
from tests.features.test_store import write_like_clip_retrieval
from tests.imitated_gpu import DeviceError, OnGPU, imitated_gpu
from tests.tiny_llava import tiny_llava


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


def test_the_imitation_refuses_what_two_gpus_do() -> None:
    with imitated_gpu(2):
        x = torch.randn(4, 3, device="cuda:1")
        assert str(x.device) == "cuda:1"
        with pytest.raises(DeviceError):
            x + torch.ones(4, 3, device="cuda")
        torch.cuda.set_device(1)
        assert (x + torch.ones(4, 3, device="cuda")).device == x.device


@pytest.mark.usefixtures("gpu")
def test_what_a_gpu_saved_is_read_only_with_a_place_to_go(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(3, device="cuda"), "y": torch.ones(3)}, tmp_path / "saved")
    with pytest.raises(DeviceError, match="map_location"):
        torch.load(tmp_path / "saved", weights_only=True)
    assert torch.load(tmp_path / "saved", map_location="cpu", weights_only=True)["x"].tolist() == [1, 1, 1]


@pytest.mark.usefixtures("gpu")
def test_the_imitation_lets_pass_what_a_gpu_does() -> None:
    x = torch.randn(4, 3, device="cuda")
    assert {y.device for y in (x, x + torch.tensor(1.0), x[torch.tensor([0, 1])], torch.zeros_like(x))} == {x.device}
    assert torch.rand(3, generator=torch.Generator("cuda"), device="cuda").is_cuda
    assert x.cpu().numpy().shape == (4, 3)
    assert x.to("cuda") is x
    assert torch.nn.utils.rnn.pad_sequence([x, x[:2]]).is_cuda
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


def trained(folder: Path, device: str, *more: L.Callback, resume: bool = False) -> tuple[list[str], SAEModule]:
    """Train for 30 steps with a checkpoint after each ten, from the last one if so told; return where it began as well."""
    began: list[str] = []

    class Notes(L.Callback):
        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            began.append(f"{pl_module.device} from {trainer.global_step}")

    history, module = MetricHistory(), kind_module("batch_topk_sae", k=4)()
    run = L.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu", devices=1, max_steps=30, val_check_interval=10, logger=False,
        check_val_every_n_epoch=None, num_sanity_val_steps=0, gradient_clip_val=1.0, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[history, Notes(), ResumeCheckpoint(str(folder / "fit"), 10), *more],
    )  # fmt: skip
    last = folder / "fit" / "last.ckpt" if resume else None
    run.fit(module, made_data(folder) if not resume else reopened(folder), ckpt_path=last, weights_only=True)
    assert history.frame()["step"].tolist() == [10, 20, 30]
    return began, module


@pytest.mark.parametrize(("first", "then"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_training_that_died_on_one_device_goes_on_on_another(tmp_path: Path, first: str, then: str) -> None:
    def on(device: str, *more: L.Callback, resume: bool = False) -> tuple[list[str], SAEModule]:
        if device == "cpu":
            return trained(tmp_path, device, *more, resume=resume)
        with imitated_gpu():
            return trained(tmp_path, device, *more, resume=resume)

    with pytest.raises(RuntimeError, match="killed"):
        on(first, Dies(25))
    began, module = on(then, resume=True)
    assert began == [f"{then}{':0' if then == 'cuda' else ''} from 20"]
    assert all(not isinstance(p, OnGPU) and bool(p.isfinite().all()) for p in module.dictionary.parameters())


def test_of_several_gpus_a_model_that_answers_draws_on_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch warns of random numbers that are kept for all GPUs of a machine, as it then looks at each."""
    victim = Llava(str(tiny_llava(tmp_path)), "USER: <image>\n{request} ASSISTANT:", 1, 2, dtype="float32")
    monkeypatch.setattr(torch.random, "_fork_rng_warned_already", False)
    with imitated_gpu(2), warnings.catch_warnings():
        warnings.filterwarnings("error", ".*fork_rng.*")
        victim.load(None, "cuda:1")
        assert len(victim.answers(Image.new("RGB", (32, 32)), Request("x", "bread"), "sunrise", 0)) == 1


class Greedy(ColorEncoder):
    """Wants more memory than there is."""

    def encode_image(self, images: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def test_without_gpu_memory_an_extraction_says_what_to_lower(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^out of GPU memory: lower extraction\.batch_size=7; finished shards are kept$"
    ):
        extract_features(ColorPairs((3,)), Greedy(), tmp_path, batch_size=7, workers=0)


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
    ],
)
def test_a_library_without_gpu_memory_is_told_as_such(said: str) -> None:
    with pytest.raises(ConfigError, match="^out of GPU memory: lower it$"), enough_gpu_memory("lower it"):
        raise RuntimeError(said)


def test_another_error_of_the_gpu_stays_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="device-side assert"), enough_gpu_memory("lower it"):
        raise RuntimeError("CUDA error: device-side assert triggered")


def test_on_a_gpu_too_a_batchs_threshold_is_looked_for_near_that_of_the_last_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lows: list[float] = []

    def above(*given: Any) -> Any:
        lows.append(given[-1])
        return found(*given)

    found = selection._above
    monkeypatch.setattr(selection, "_above", above)
    z, weight = (torch.randn(shape, 8, generator=torch.Generator().manual_seed(shape)) for shape in (50, 64))
    with imitated_gpu():
        chosen = selection.PerBatch(5).to("cuda")
        codes = [chosen.choose((z * size).cuda(), weight.cuda(), None).values.min().item() for size in (1, 20, 20)]
    assert lows[-1] == pytest.approx(selection.MARGIN * codes[-1])


def test_what_a_victim_has_already_is_no_remedy() -> None:
    assert "victim.dtype" not in Llava("x", "<image>{request}", dtype="float16").less_memory
    assert "victim.dtype=float16" in Llava("x", "<image>{request}", dtype="float32").less_memory


def short_of_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


COMMANDS: dict[str, tuple[Callable[[], None], str]] = {
    "mds": (entrypoint("mds")(short_of_memory), "end other programs that use the GPU"),
    "train": (train.main, "lower training.batch_size=128, or training.pool_rows="),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_without_gpu_memory_a_command_ends_with_a_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(RowReader, "allocate", short_of_memory)
    arguments = ["dataset=synthetic", "dataset.pairs=400", "features=sae", "training.batch_size=128"]
    monkeypatch.setattr(sys, "argv", [name, f"artifacts={tmp_path}", *arguments])
    with pytest.raises(SystemExit):
        COMMANDS[name][0]()
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: out of GPU memory: {COMMANDS[name][1]}")


def test_a_gpu_without_an_index_is_the_first_one_whatever_a_training_has_chosen() -> None:
    with imitated_gpu(2):
        torch.cuda.set_device(1)  # as Lightning does for trainer.devices=[1]
        assert [named_device(name) for name in ("auto", "cuda", "cuda:1")] == ["cuda:0", "cuda:0", "cuda:1"]
        assert several_devices(named_device("cuda"), -1) == ["cuda:0", "cuda:1"]
        with pytest.raises(ConfigError, match=r"device=cuda:1: set device=cuda"):
            several_devices("cuda:1", 2)
