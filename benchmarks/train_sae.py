"""Training steps of the TopK SAE on precomputed features, as ratios to plain dense PyTorch loops in the same run.

    python benchmarks/train_sae.py            # d = 1024, k = 32, batch 4096, n = 1024 and 8192

There are two such loops. The plain one trains the same model with the same step as ours: b_pre is learned, the
decoder's gradient projected, the norm clipped, the atoms renormalized. The bare one does none of that, so it does less
than ours: forward, backward, fused Adam.

All start from the same weights and see the same batches. They take turns, a step each, and a ratio is the median of the
ratios within the turns, so that a machine whose speed drifts does not decide. FVU is that of a held-out batch after the
same number of steps.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmmono.dictionaries import TopKSAE, fraction_of_variance_unexplained

PLAIN, BARE = "plain dense loop", "bare dense loop"


class Dense(nn.Module):
    """Straightforward TopK SAE with dense tensors: linear, topk, scatter, linear."""

    def __init__(self, sae: TopKSAE, pre_bias: bool) -> None:
        super().__init__()
        self.k = sae.k
        self.b_pre = nn.Parameter(sae.b_pre.detach().clone(), requires_grad=pre_bias)
        self.encoder = nn.Linear(sae.dim, sae.num_features, bias=False)
        self.decoder = nn.Linear(sae.num_features, sae.dim, bias=False)
        self.encoder.weight.data.copy_(sae.W_enc.data)
        self.decoder.weight.data.copy_(sae.W_dec.data.T)

    def forward(self, z: Tensor) -> Tensor:
        """Reconstruct embeddings."""
        values, indices = F.relu(self.encoder(z - self.b_pre)).topk(self.k, dim=1)
        codes = torch.zeros(len(z), self.encoder.out_features).scatter_(1, indices, values)
        return self.decoder(codes) + self.b_pre


def adam(module: nn.Module) -> torch.optim.Optimizer:
    """Optimizer that all variants use."""
    return torch.optim.Adam((p for p in module.parameters() if p.requires_grad), lr=1e-3, fused=True)


def plain_step(model: Dense) -> Callable[[Tensor], None]:
    """Training step with the same operations as ours, with dense tensors and autograd."""
    optimizer = adam(model)

    def step(z: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = 2 * (model(z) - z).square().sum(1).mean()
        loss.backward()
        atoms = model.decoder.weight
        assert atoms.grad is not None
        with torch.no_grad():
            atoms.grad -= (atoms.grad * atoms).sum(0) * atoms
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            atoms /= atoms.norm(dim=0)

    return step


def bare_step(model: Dense) -> Callable[[Tensor], None]:
    """Minimal training step: forward, backward, optimizer."""
    optimizer = adam(model)

    def step(z: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = 2 * (model(z) - z).square().sum(1).mean()
        loss.backward()
        optimizer.step()

    return step


def our_step(sae: TopKSAE, autocast: bool = False) -> Callable[[Tensor], None]:
    """Training step with the operations of `SAEModule`."""
    optimizer = adam(sae)

    def step(z: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        image, text = z.chunk(2)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = sae(image, text).loss
        loss.backward()
        sae.project_decoder_gradient()
        nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        optimizer.step()
        sae.normalize_decoder_()

    return step


def features(samples: int, dim: int, generator: torch.Generator) -> Tensor:
    """Unit vectors that are noisy, sparse, positive combinations of 4·dim directions."""
    atoms = F.normalize(torch.randn(4 * dim, dim, generator=generator), dim=1)
    which = torch.randint(len(atoms), (samples, 24), generator=generator)
    weights = torch.rand(samples, 24, generator=generator)
    z = F.embedding_bag(which, atoms, per_sample_weights=weights, mode="sum")
    return F.normalize(z + 0.02 * torch.randn(z.shape, generator=generator), dim=1)


def compare(dim: int, latents: int, k: int, batch: int, rounds: int) -> None:
    """Time all variants at one size and print a table."""
    data = features(8 * batch, dim, torch.Generator().manual_seed(0))
    train, held_out = data[:-batch].split(batch), data[-batch:]
    torch.manual_seed(0)
    sae = TopKSAE(dim, latents, k)
    sae.initialize_pre_bias(data.mean(0), data.mean(0))
    lower = copy.deepcopy(sae)
    plain, bare = Dense(sae, pre_bias=True), Dense(sae, pre_bias=False)
    weight = sae.W_enc.detach().clone()
    variants: dict[str, Callable[[Tensor], object]] = {
        PLAIN: plain_step(plain),
        BARE: bare_step(bare),
        "mmmono": our_step(sae),
        "mmmono, bf16-mixed": our_step(lower, autocast=True),
        "encoder's product alone": lambda z: z @ weight.T,
    }
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, step in variants.items():
            start = time.perf_counter()
            step(train[number % len(train)])
            if number:  # the first round warms up
                times[name].append(time.perf_counter() - start)

    reconstructions: dict[str, Callable[[Tensor], Tensor]] = {
        PLAIN: plain,
        BARE: bare,
        "mmmono": lambda z: sae.decode(sae.encode(z, "image"), "image"),
        "mmmono, bf16-mixed": lambda z: lower.decode(lower.encode(z, "image"), "image"),
    }
    print(f"\nd = {dim}, n = {latents}, k = {k}, batch {batch}, {rounds} steps, {torch.get_num_threads()} threads")
    print(f"{'':26}{'samples/s':>12}{'× plain':>10}{'× bare':>10}{'FVU':>10}")
    for name, seconds in times.items():
        speed = batch / statistics.median(seconds)
        ratios = (
            statistics.median(theirs / ours for theirs, ours in zip(times[base], seconds, strict=True))
            for base in (PLAIN, BARE)
        )
        error = ""
        if name in reconstructions:
            with torch.no_grad():
                error = f"{float(fraction_of_variance_unexplained(held_out, reconstructions[name](held_out))):10.4f}"
        print(f"{name:26}{speed:12,.0f}" + "".join(f"{ratio:10.2f}" for ratio in ratios) + error)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latents", type=int, nargs="+", default=[1024, 8192])
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    for latents in arguments.latents:
        compare(arguments.dim, latents, arguments.k, arguments.batch, arguments.rounds)
