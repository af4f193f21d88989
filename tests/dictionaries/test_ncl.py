import math
import os
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn import functional as F

from mmmono.dictionaries import NCLHead, contrastive_loss
from mmmono.dictionaries.ncl import rep_relu

LIMIT_SECONDS = 300  # of what a process waits for the other one, on a machine that does other things too


def test_equals_equation_4_with_the_appendix_layer_norm() -> None:
    torch.manual_seed(0)
    head = NCLHead(6, 9)
    z = torch.randn(11, 6)
    first, norm, _, second = head.projector
    hidden = z.numpy() @ first.weight.detach().numpy().T + first.bias.detach().numpy()
    hidden = (hidden - hidden.mean(1, keepdims=True)) / np.sqrt(hidden.var(1, keepdims=True) + norm.eps)
    expected = np.maximum(np.maximum(hidden, 0) @ second.weight.detach().numpy().T + second.bias.detach().numpy(), 0)
    got = head.encode(z, "image").detach().numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert (got >= 0).all()
    assert not any(isinstance(m, torch.nn.LayerNorm) for m in NCLHead(6, layer_norm=False).modules())


def test_contrastive_loss_is_the_mean_of_both_directions() -> None:
    image, text = torch.randn(7, 5, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64)
    similarity = 2.5 * image.numpy() @ text.numpy().T
    to_text = -np.mean(np.diag(similarity) - np.log(np.exp(similarity).sum(1)))
    to_image = -np.mean(np.diag(similarity) - np.log(np.exp(similarity).sum(0)))
    assert contrastive_loss(image, text, 2.5).item() == pytest.approx((to_text + to_image) / 2)
    assert contrastive_loss(image, text).item() == pytest.approx(contrastive_loss(text, image).item())


def test_cosine_ignores_length_and_dot_does_not() -> None:
    image, text = torch.rand(8, 4), torch.rand(8, 4)
    cosine, dot = NCLHead(4), NCLHead(4, similarity="dot")
    torch.testing.assert_close(cosine.loss(image, text), cosine.loss(10 * image, text))
    assert not torch.allclose(dot.loss(image, text), dot.loss(10 * image, text))
    with pytest.raises(ValueError, match="similarity"):
        NCLHead(4, similarity="euclid")  # type: ignore[arg-type]


def test_temperature_is_bounded_as_clips() -> None:
    head = NCLHead(4)
    assert head.logit_scale.exp().item() == pytest.approx(1 / 0.07, rel=1e-5)
    image, text = torch.rand(8, 4), torch.rand(8, 4)
    with torch.no_grad():
        head.logit_scale.fill_(math.log(1e4))
    expected = contrastive_loss(F.normalize(image, dim=1), F.normalize(text, dim=1), 100.0)
    torch.testing.assert_close(head.loss(image, text), expected)


def test_rep_relu_is_relu_forward_and_gelu_backward() -> None:
    x = torch.linspace(-3, 3, 61, dtype=torch.float64, requires_grad=True)
    y = rep_relu(x)
    torch.testing.assert_close(y, x.relu())
    y.sum().backward()
    reference = x.detach().clone().requires_grad_()
    F.gelu(reference).sum().backward()
    torch.testing.assert_close(x.grad, reference.grad)


def _gradients(rank: int, world: int, folder: str, z: torch.Tensor) -> None:
    """What one of `world` processes does to its share of a batch, in Lightning."""
    import lightning as L

    from mmmono.dictionaries import NCLModule, PairedBatch

    os.environ.update(MASTER_ADDR="127.0.0.1", RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))
    dist.init_process_group(
        "gloo", f"file://{folder}/rendezvous", timedelta(seconds=LIMIT_SECONDS), world_size=world, rank=rank
    )
    torch.manual_seed(0)
    module = NCLModule(NCLHead(5))
    wrapped = torch.nn.parallel.DistributedDataParallel(_Step(module))

    class Trainer:
        strategy = L.pytorch.strategies.DDPStrategy()
        log_every_n_steps = 10**9
        global_step = 1

    module._trainer = Trainer()  # type: ignore[assignment]
    share = z[:, rank * 4 : rank * 4 + 4]
    wrapped(PairedBatch(share[0], share[1])).backward()
    if rank == 0:
        torch.save({n: p.grad for n, p in module.dictionary.named_parameters()}, Path(folder) / "grads.pt")
    dist.barrier()
    dist.destroy_process_group()


class _Step(torch.nn.Module):
    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.dictionary = module.dictionary
        self.step = module.training_step

    def forward(self, batch: object) -> torch.Tensor:
        return self.step(batch, 0)


@pytest.mark.slow
def test_negatives_come_from_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes, of which this is one, with half a batch each have the gradient of one with the whole batch."""
    z = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(3))
    for name in ("MASTER_ADDR", "RANK", "WORLD_SIZE", "LOCAL_RANK"):  # of this process alone
        monkeypatch.setenv(name, "0")
    other = mp.get_context("spawn").Process(target=_gradients, args=(1, 2, str(tmp_path), z))
    other.start()
    _gradients(0, 2, str(tmp_path), z)
    other.join(LIMIT_SECONDS)
    assert other.exitcode == 0
    distributed = torch.load(tmp_path / "grads.pt", weights_only=True)
    torch.manual_seed(0)
    head = NCLHead(5)
    head.loss(head.encode(z[0], "image"), head.encode(z[1], "text")).backward()
    for name, parameter in head.named_parameters():
        torch.testing.assert_close(distributed[name], parameter.grad, atol=1e-6, rtol=1e-4)
