"""Training steps of the TopK SAE on precomputed features, as ratios to a plain dense PyTorch loop in the same run.

    python benchmarks/train_sae.py            # d = 1024, k = 32, batch 4096, n = 1024 and 8192

All start from the same weights and see the same batches; rounds alternate between them, and medians are compared, so
that a machine whose speed drifts does not decide. FVU is that of a held-out batch after the same number of steps.
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


class Dense(nn.Module):
    """What one writes in an afternoon: linear, topk, scatter, linear."""

    def __init__(self, sae: TopKSAE) -> None:
        super().__init__()
        self.k = sae.k
        self.b_pre = nn.Parameter(sae.b_pre.detach().clone())
        self.encoder = nn.Linear(sae.dim, sae.num_features, bias=False)
        self.decoder = nn.Linear(sae.num_features, sae.dim, bias=False)
        self.encoder.weight.data.copy_(sae.W_enc.data)
        self.decoder.weight.data.copy_(sae.W_dec.data.T)

    def forward(self, z: Tensor) -> Tensor:
        values, indices = F.relu(self.encoder(z - self.b_pre)).topk(self.k, dim=1)
        codes = torch.zeros(len(z), self.encoder.out_features).scatter_(1, indices, values)
        return self.decoder(codes) + self.b_pre


def dense_step(model: Dense, optimizer: torch.optim.Optimizer) -> Callable[[Tensor], None]:
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


def our_step(sae: TopKSAE, optimizer: torch.optim.Optimizer, autocast: bool) -> Callable[[Tensor], None]:
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
    """Unit vectors with the structure dictionaries look for: sparse positive combinations of 4·dim directions, noisy."""
    atoms = F.normalize(torch.randn(4 * dim, dim, generator=generator), dim=1)
    blocks = []
    for _ in range(samples // 4096):
        which = torch.randint(len(atoms), (4096, 24), generator=generator)
        weights = torch.rand(4096, 24, generator=generator)
        blocks.append(F.embedding_bag(which, atoms, per_sample_weights=weights, mode="sum"))
    z = torch.cat(blocks)
    return F.normalize(z + 0.02 * torch.randn(z.shape, generator=generator), dim=1)


def compare(dim: int, latents: int, k: int, batch: int, rounds: int) -> None:
    generator = torch.Generator().manual_seed(0)
    data = features(8 * batch, dim, generator)
    train, held_out = data[:-batch].split(batch), data[-batch:]
    torch.manual_seed(0)
    sae = TopKSAE(dim, latents, k)
    sae.initialize_pre_bias(data.mean(0), data.mean(0))
    reference = Dense(sae)
    lower = copy.deepcopy(sae)

    def adam(module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)

    weight = sae.W_enc.detach().clone()
    variants: dict[str, Callable[[Tensor], object]] = {
        "plain dense loop": dense_step(reference, adam(reference)),
        "mmmono": our_step(sae, adam(sae), autocast=False),
        "mmmono, bf16-mixed": our_step(lower, adam(lower), autocast=True),
        "encoder's product alone": lambda z: z @ weight.T,
    }
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        z = train[number % len(train)]
        for name, step in variants.items():
            start = time.perf_counter()
            step(z)
            if number:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    with torch.no_grad():
        fvu = {
            "plain dense loop": fraction_of_variance_unexplained(held_out, reference(held_out)),
            **{
                name: fraction_of_variance_unexplained(held_out, model.decode(model.encode(held_out, "image"), "image"))
                for name, model in (("mmmono", sae), ("mmmono, bf16-mixed", lower))
            },
        }
    base = statistics.median(times["plain dense loop"])
    print(f"\nd = {dim}, n = {latents}, k = {k}, batch {batch}, {rounds} steps, {torch.get_num_threads()} threads")
    print(f"{'':26}{'samples/s':>12}{'ratio':>8}{'FVU':>9}")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        error = f"{float(fvu[name]):9.4f}" if name in fvu else ""
        print(f"{name:26}{batch / median:12,.0f}{base / median:8.2f}{error}")


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
