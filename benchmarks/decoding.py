"""What decoding costs with Pillow, with its draft mode and with torchvision, and what it changes.

    python benchmarks/decoding.py SHARDS                  # tars with JPEG photographs
    python benchmarks/decoding.py SHARDS --artifacts artifacts      # also cosines of embeddings of the DrawingCLIP there

In draft mode libjpeg computes an image at 1/2, 1/4 or 1/8 of its size, where that is still at least as large as what the
model takes. So photographs whose short side is less than twice the model's are decoded as without it. To see what larger
ones would gain, and lose, the model is also taken to be smaller by a factor: its input is then enlarged again for the tower.
Rates are images a second, decoded and resized, of CPU time of one thread; the fastest of several rounds counts.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable

import numpy as np
import torch
import torchvision
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms import CenterCrop, InterpolationMode, Resize, v2
from torchvision.transforms.functional import to_pil_image

from mmmono.core.artifacts import Artifacts
from mmmono.data.images import decode_image
from mmmono.data.opening import ShardOpener
from mmmono.data.shard_patterns import expand_shards
from mmmono.data.tar import Sample, read_samples
from mmmono.vlm.drawingclip import load_drawingclip
from mmmono.vlm.resizing import ResizeAndCrop, by_torch

Encode = Callable[[list[Image.Image]], torch.Tensor]
BICUBIC = Image.Resampling.BICUBIC
ROUNDS = 7


def main(shards: list[str], images: int, side: int, artifacts: str | None) -> None:
    torch.set_num_threads(1)
    files = photographs(shards, images)
    sides = np.array([min(Image.open(io.BytesIO(file)).size) for file in files])
    pixels = np.mean([np.prod(Image.open(io.BytesIO(file)).size) for file in files])
    print(f"{len(files)} photographs, short side {sides.min()} to {sides.max()}, {pixels / 1e3:.0f} k pixels, "
          f"{np.mean([len(file) for file in files]) / 1e3:.1f} kB")  # fmt: skip
    encode = None if artifacts is None else image_encoder(artifacts)
    for size in (side, side * 7 // 8, side // 2, side // 4):
        print(f"input of {size} px")
        compare(files, size, side, encode)


def compare(files: list[bytes], size: int, side: int, encode: Encode | None) -> None:
    """Print the rates of each way, and how far what it gives is from what the first one gives."""
    ways = {name: (lambda file, way=way: way(file)) for name, way in ways_to(size).items()}  # type: ignore[misc]
    rates = fastest({name: (lambda way=way: [way(file) for file in files]) for name, way in ways.items()}, len(files))
    made = {name: [way(file) for file in files] for name, way in ways.items()}
    first = next(iter(made))
    expected = None if encode is None else encode([image.resize((side, side), BICUBIC) for image in made[first]])
    for name, images in made.items():
        pairs = zip(images, made[first], strict=True)
        differ = np.mean([np.abs(np.asarray(a, int) - np.asarray(b, int)).mean() for a, b in pairs])
        line = f"  {name:42} {rates[name]:6.0f}/s   pixels differ by {differ:.4f}"
        if encode is not None and expected is not None:
            found = encode([image.resize((side, side), BICUBIC) for image in images])
            cosine = F.cosine_similarity(found, expected, dim=1)
            line += f"   cosine {cosine.mean():.5f}, least {cosine.min():.5f}"
        print(line, flush=True)


def ways_to(size: int) -> dict[str, Callable[[bytes], Image.Image]]:
    """Ways to an image of `size` pixels, from a JPEG; the first is mmmono's default."""
    pillow = ResizeAndCrop(Resize(size, InterpolationMode.BICUBIC), CenterCrop(size))
    (by_bytes,) = by_torch([pillow])

    def draft(file: bytes, least: int) -> Image.Image:
        with Image.open(io.BytesIO(file)) as image:
            image.draft("RGB", (least, least))
            return pillow(image.convert("RGB"))

    def tensor(file: bytes) -> torch.Tensor:
        data = torch.frombuffer(bytearray(file), dtype=torch.uint8)
        return torchvision.io.decode_jpeg(data, torchvision.io.ImageReadMode.RGB)

    def resized(image: torch.Tensor) -> torch.Tensor:
        small = v2.functional.resize(image, [size], InterpolationMode.BICUBIC, antialias=True)
        return v2.functional.center_crop(small, [size, size])

    return {
        "Pillow": lambda file: pillow(decode_image(file)),
        "Pillow, extraction.resize=torch": lambda file: by_bytes(decode_image(file)),
        "Pillow's draft": lambda file: draft(file, size),
        "Pillow's draft, at least twice as large": lambda file: draft(file, 2 * size),
        "torchvision, resized by Pillow": lambda file: pillow(to_pil_image(tensor(file))),
        "torchvision, resized by torch": lambda file: to_pil_image(resized(tensor(file))),
    }


def image_encoder(root: str) -> Callable[[list[Image.Image]], torch.Tensor]:
    """The first DrawingCLIP under an artifacts root."""
    encoder = load_drawingclip(next(Artifacts(root).find("models", "drawingclip-*")).path)

    @torch.inference_mode()
    def encode(images: list[Image.Image]) -> torch.Tensor:
        batches = [images[start : start + 32] for start in range(0, len(images), 32)]
        return torch.cat([encoder.encode_image(torch.stack([*map(encoder.preprocess, batch)])) for batch in batches])

    return encode


def photographs(shards: list[str], most: int) -> list[bytes]:
    files: list[bytes] = []
    opener = ShardOpener()
    for shard in expand_shards(shards):
        with opener.open(shard) as stream:
            for sample in read_samples(stream, reads=lambda extension: extension in ("jpg", "jpeg")):
                files += sample.files.values() if isinstance(sample, Sample) else []
                if len(files) >= most:
                    return files[:most]
    return files


def fastest(works: dict[str, Callable[[], object]], count: int) -> dict[str, float]:
    """Return how many of `count` things each work does in a second of CPU time, in its fastest round; they take turns."""
    times = dict.fromkeys(works, float("inf"))
    for _ in range(ROUNDS):
        for name, work in works.items():
            begun = time.thread_time()
            work()
            times[name] = min(times[name], time.thread_time() - begun)
    return {name: count / taken for name, taken in times.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="+")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--side", type=int, default=224, help="pixels of the model's input")
    parser.add_argument("--artifacts", help="root with a fitted DrawingCLIP")
    chosen = parser.parse_args()
    main(chosen.shards, chosen.images, chosen.side, chosen.artifacts)
