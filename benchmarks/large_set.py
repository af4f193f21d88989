"""What entrypoints take on a large set of embeddings: seconds of CPU time, and the largest memory of a process.

    python benchmarks/large_set.py --folder /disk/with/room    # a million pairs: 3 GB, 15 minutes
    python benchmarks/large_set.py --folder /tmp/large --pairs 20000 --latents 512

Pairs are sums of a few of 2,000 directions with noise, in groups of two, each with a caption and a label. They lie in two
.npy files with a table, as embeddings of one's own do (`dataset=store`). Each entrypoint is a process of its own, with one
thread (`OMP_NUM_THREADS=1`), and finds what those before it have made. Memory includes pages of the files that are mapped.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
DIM, CONCEPTS, OF_A_PAIR = 256, 2000, 4
BLOCK = 1 << 16  # pairs that are made at a time
COMMANDS = (
    ("mds", (), "`mds`, with making the store and 200 steps of training"),
    ("mds", (), "`mds` again, whose results are there"),
    ("certainty", (), ""),
    ("robustness", (), ""),
    ("consequences", ("dataset.label=null",), ""),
    ("names", (), ""),
    ("concepts", (), ""),
    ("faithfulness", ("dataset.label=null",), ""),
    ("ablation", (), ""),
    ("top_samples", ("top_samples.per_class=0",), "`top_samples`, without pictures"),
    ("consensus", ("consensus.n_seeds=1",), "`consensus consensus.n_seeds=1`, which trains another SAE"),
    ("plan", (), ""),
)


def write_pairs(folder: Path, pairs: int) -> list[str]:
    """Write embeddings with their table, unless they are there, and return the settings that name them."""
    files = {side: folder / f"{side}.npy" for side in ("image", "text")}
    table = folder / f"pairs-{pairs}.parquet"
    if not table.exists():
        rng = np.random.default_rng(0)
        directions = {side: rng.standard_normal((CONCEPTS, DIM)).astype(np.float32) for side in files}
        directions["text"][: CONCEPTS // 2] = directions["image"][: CONCEPTS // 2]  # half of them are shared
        into = {s: np.lib.format.open_memmap(f, "w+", np.float16, (pairs, DIM)) for s, f in files.items()}
        first = np.empty(pairs, np.int64)
        for start in range(0, pairs, BLOCK):
            count = min(BLOCK, pairs - start)
            chosen = rng.integers(0, CONCEPTS, (count, OF_A_PAIR))
            first[start : start + count] = chosen[:, 0]
            for side, of in directions.items():
                noise = rng.standard_normal((count, DIM), dtype=np.float32)
                into[side][start : start + count] = of[chosen].sum(1) + noise
        frame = pd.DataFrame({"key": [f"pair-{i:08d}" for i in range(pairs)]})
        frame["caption"] = [f"a picture of thing {concept}" for concept in first]
        frame["group"] = [f"group-{i // 2}" for i in range(pairs)]
        frame["label"] = [f"kind {concept % 20}" for concept in first]
        frame.to_parquet(table)
    return [*(f"dataset.{side}={file}" for side, file in files.items()), f"dataset.metadata={table}"]


def measured(command: Sequence[str], log: Path) -> tuple[float, float]:
    """Run a command; return its seconds of CPU time and its largest memory in GB. Raises RuntimeError if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} failed:\n{log.read_text()[-2000:]}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where embeddings and artifacts lie, which stay")
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--latents", type=int, default=4096)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    settings = [
        *write_pairs(given.folder, given.pairs), "dataset=store", "dataset.label=label", "features=sae",
        f"features.expansion={given.latents // DIM}", "trainer=cpu", "trainer.max_steps=200", "trainer.min_steps=200",
    ]  # fmt: skip
    print(
        f"{given.pairs:,} pairs of {DIM} dimensions, {given.latents:,} latents\n\n| command | CPU s | GB |\n|---|---|---|"
    )
    with tempfile.TemporaryDirectory(dir=given.folder) as fresh:
        for name, more, said in COMMANDS:
            command = [
                sys.executable,
                str(EXPERIMENTS / f"{name}.py"),
                f"artifacts={fresh}/artifacts",
                *settings,
                *more,
            ]
            seconds, memory = measured(command, given.folder / f"{name}.log")
            print(f"| {said or f'`{name}`'} | {seconds:.0f} | {memory:.1f} |", flush=True)


if __name__ == "__main__":
    main()
