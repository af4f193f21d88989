"""Compare the speed of the numba kernels with the same passes in PyTorch, both eager and through torch.compile.

    python benchmarks/compiled_kernels.py --threads 2

torch.compile needs a C++ compiler (g++ or clang++), which it calls on the first pass; that pass is not timed. Both forms
are made for it: the reduction over pairs is one fused expression, and the top samples are found from fused maxima of
chunks, so that activations are written only where a chunk may hold one of them. Tensors come in blocks of 512 pairs, as
analyses read them, and for torch.compile also in the kernels' larger ones. Times are the best of several rounds in
which the three alternate, in seconds of the clock and of all cores together; the latter are comparable on a busy machine.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mmmono.features import StoredRows
from mmmono.features.feature_set import COMPILED_BLOCK
from mmmono.features.rows import to_float32
from mmmono.interpretability.top_samples import CHUNK_ROWS, MAX_PENDING, TopStream, _Pending
from mmmono.modality.dominance import DominanceStream

M = 20
BLOCK = 512  # pairs per block of tensors, as `activations` yields them on a CPU
SUMMED = 32  # rows summed in float32, as the kernels do


def contrasts(image: Tensor, text: Tensor, center: Tensor) -> list[Tensor]:
    """What `add_ratios` adds for a block: sums of deviations and of their squares, counts, lengths of rows."""
    x, y = image.float(), text.float()
    f, g = x.square().sum(1, keepdim=True).sqrt(), y.square().sum(1, keepdim=True).sqrt()
    a, b = x.abs() / f, y.abs() / g
    total = a + b
    deviation = torch.where(total == 0, 0.0, (a - b) / total - center).view(-1, SUMMED, image.shape[1])
    sums, squares = deviation.sum(1).double().sum(0), deviation.square().sum(1).double().sum(0)
    return [sums, squares, (total > 0).sum(0), (a > 0).sum(0), (b > 0).sum(0), f.amin(), f.amax(), g.amin(), g.amax()]


def peaks(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Length of each row, and the largest activation of each feature in each chunk of CHUNK_ROWS rows."""
    values = rows.float()
    lengths = values.square().sum(1, keepdim=True).sqrt()
    return lengths, (values / lengths).view(-1, CHUNK_ROWS, rows.shape[1]).amax(1)


class TopOfPeaks(TopStream):
    """Top samples that are looked for only where a chunk's maximum exceeds the m-th best so far."""

    def __init__(self, m: int, find_peaks: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__(m)
        self.find_peaks = find_peaks

    def add_rows(self, rows: Tensor) -> None:
        self._best(torch.empty(0, rows.shape[1]))
        lengths, highest = self.find_peaks(rows)
        assert bool(lengths.amax().isfinite())
        for chunk, length, peak in zip(rows.split(CHUNK_ROWS), lengths.split(CHUNK_ROWS), highest, strict=True):
            assert self._values is not None
            exceeding = (peak > self._values[:, -1]).nonzero().squeeze(1)
            if len(exceeding):
                self._pending.append(_Pending(exceeding, chunk[:, exceeding].float() / length, self._count))
                self._pending_columns += len(exceeding)
            self._count += len(chunk)
            if self._pending_columns > MAX_PENDING * rows.shape[1]:
                self._settle()


Blocks = list[tuple[Tensor, Tensor]]


@dataclass
class Spent:
    """Best times of a pass, in seconds."""

    clock: float = float("inf")
    cores: float = float("inf")

    def measure(self, work: Callable[[], object]) -> None:
        clock, cores = time.perf_counter(), time.process_time()
        work()
        self.clock = min(self.clock, time.perf_counter() - clock)
        self.cores = min(self.cores, time.process_time() - cores)


def compare(title: str, passes: dict[str, Callable[[], Tensor]], rounds: int) -> None:
    """Print the times of the passes, which must agree, and their ratios to the first."""
    expected, *others = [work() for work in passes.values()]
    for other in others:
        torch.testing.assert_close(other, expected, atol=1e-6, rtol=1e-6)
    spent = {name: Spent() for name in passes}
    for _ in range(rounds):
        for name, work in passes.items():
            spent[name].measure(work)
    kernel = next(iter(spent.values()))
    print(title)
    for name, one in spent.items():
        clock, cores = one.clock / kernel.clock, one.cores / kernel.cores
        print(f"  {name:18} {one.clock:6.3f} s, {one.cores:6.3f} s of cores   {clock:5.2f} ×, {cores:5.2f} × of cores")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1 << 16)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not any(map(shutil.which, ("g++", "clang++"))):
        raise SystemExit("no C++ compiler here (g++ or clang++), which torch.compile needs on a CPU")
    compiled_contrasts, compiled_peaks = torch.compile(contrasts, dynamic=False), torch.compile(peaks, dynamic=False)
    for dtype in (torch.float16, torch.float32):
        generator = torch.Generator().manual_seed(0)
        image, text = (torch.randn(options.pairs, options.dim, generator=generator).to(dtype) for _ in range(2))
        large, small = (list(zip(image.split(n), text.split(n), strict=True)) for n in (COMPILED_BLOCK, BLOCK))

        def scores(compiled: bool, blocks: Blocks) -> Tensor:
            stream = DominanceStream()
            for pair in blocks:
                rows = [StoredRows(side, True, "benchmark") for side in pair]
                stream.add(*(rows if compiled else map(to_float32, rows)))
            return stream.result().scores

        def fused_scores(blocks: Blocks) -> Tensor:
            first, second = (to_float32(StoredRows(side[:256], True, "benchmark")).abs() for side in blocks[0])
            center = ((first - second) / (first + second)).mean(0)
            found = [compiled_contrasts(*pair, center) for pair in blocks]
            sums, count = (torch.stack([one[i] for one in found]).sum(0) for i in (0, 2))
            return (1 + center + sums / count) / 2

        def top(compiled: bool, blocks: Blocks) -> Tensor:
            stream = TopStream(M)
            for side, _ in blocks:
                rows = StoredRows(side, True, "benchmark")
                stream.add(rows if compiled else to_float32(rows))
            return stream.result().values

        def fused_top(blocks: Blocks) -> Tensor:
            stream = TopOfPeaks(M, compiled_peaks)
            for side, _ in blocks:
                stream.add_rows(side)
            return stream.result().values

        of = f"{options.pairs:,} pairs × {options.dim}, {dtype}, {options.threads} threads"
        for title, plain, fused in (
            ("add_ratios: scores", scores, fused_scores),
            (f"keep_best: top {M}", top, fused_top),
        ):
            passes = {
                "numba": partial(plain, True, large),
                "torch.compile": partial(fused, large),
                f"torch.compile, {BLOCK}": partial(fused, small),
                f"PyTorch, {BLOCK}": partial(plain, False, small),
            }
            compare(f"{title} of {of}", passes, options.rounds)


if __name__ == "__main__":
    main()
