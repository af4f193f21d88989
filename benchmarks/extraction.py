"""Compare the speed of a whole extraction with that of the encoders alone on the same batches.

python benchmarks/extraction.py 'shards/{0000..0004}.tar' --model artifacts/models/drawingclip-<digest> --pairs 512
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from mmmono.core.memory import keep_freed_memory
from mmmono.data import ImageTextPair, WebDatasetPairs
from mmmono.features import extract_features
from mmmono.vlm import load_drawingclip


def main(shards: str, model: Path, pairs: int, batch: int, rounds: int) -> None:
    keep_freed_memory()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = load_drawingclip(model, device=device)
    source = WebDatasetPairs(shards, limit=pairs)
    found = []
    for part in range(len(source.parts())):
        found += [item for item in source.read(part) if isinstance(item, ImageTextPair)]
        if len(found) >= pairs:
            break
    batches = [
        (
            torch.stack([encoder.preprocess(pair.image) for pair in found[start : start + batch]]).to(device),
            encoder.tokenize([pair.caption for pair in found[start : start + batch]]).to(device),
        )
        for start in range(0, pairs, batch)
    ]
    alone, whole = [], []
    for number in range(rounds + 1):
        start = time.perf_counter()
        with torch.inference_mode():
            for images, tokens in batches:
                encoder.encode_image(images)
                encoder.encode_text(tokens).sum().item()
        middle = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            extract_features(source, encoder, Path(folder), device=device, batch_size=batch)
        if number:  # the first round warms up
            alone.append(middle - start)
            whole.append(time.perf_counter() - middle)
    ratios = [a / w for a, w in zip(alone, whole, strict=True)]
    print(f"{pairs} pairs, batches of {batch}, {device}, {torch.get_num_threads()} threads, medians of {rounds} rounds")
    print(f"encoders alone  {pairs / statistics.median(alone):8.1f} pairs/s")
    print(f"extraction      {pairs / statistics.median(whole):8.1f} pairs/s, {statistics.median(ratios):.2f} of it")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards")
    parser.add_argument("--model", type=Path, required=True, help="a fitted DrawingCLIP, such as make demo leaves")
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    main(**vars(parser.parse_args()))
