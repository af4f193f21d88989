"""What decoding costs with Pillow, with its draft mode and with torchvision, and what it changes.

    python benchmarks/decoding.py SHARDS                  # tars with JPEG photographs
    python benchmarks/decoding.py SHARDS --artifacts artifacts      # also cosines of embeddings of the DrawingCLIP there

In draft mode libjpeg computes an image at 1/2, 1/4 or 1/8 of its size, where that is still at least as large as what the
model takes. So photographs whose short side is less than twice the model's are decoded as without it. To see what larger
ones would gain, and lose, the model is also taken to be smaller by a factor: its input is then enlarged again for the tower.
Rates are images a second of CPU time of one thread; the fastest of several rounds counts.
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

Decoder = Callable[[bytes], Image.Image]
BICUBIC = Image.Resampling.BICUBIC
ROUNDS = 3


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


def compare(
    files: list[bytes], size: int, side: int, encode: Callable[[list[Image.Image]], torch.Tensor] | None
) -> None:
    """Print rates of the decoders, and how far what they give is from the first one's."""
    reference: list[Image.Image] = []
    embedded = None
    for name, decode in decoders(size).items():
        only = rate(lambda decode=decode: [decode(file) for file in files], len(files))  # type: ignore[misc]
        small: list[Image.Image] = []

        def both(decode: Decoder = decode, small: list[Image.Image] = small) -> None:
            small[:] = [resized(decode(file), size) for file in files]

        whole = rate(both, len(files))
        reference = reference or small
        differ = difference(small, reference)
        line = f"  {name:30} decode {only:6.0f}/s   with resize {whole:6.0f}/s   pixels differ by {differ:.2f}"
        if encode is not None:
            now = encode([image.resize((side, side), BICUBIC) for image in small])
            embedded = now if embedded is None else embedded
            cosine = F.cosine_similarity(now, embedded, dim=1)
            line += f"   cosine {cosine.mean():.5f}, least {cosine.min():.5f}"
        print(line, flush=True)
    ours = by_torch([ResizeAndCrop(Resize(size, InterpolationMode.BICUBIC), CenterCrop(size))])[0]
    made: list[Image.Image] = []

    def option() -> None:
        made[:] = [ours(decode_image(file)) for file in files]

    whole = rate(option, len(files))
    line = f"  {'Pillow, extraction.resize=torch':46}   with resize {whole:6.0f}/s   pixels differ by {difference(made, reference):.4f}"
    if encode is not None and embedded is not None:
        cosine = F.cosine_similarity(encode([image.resize((side, side), BICUBIC) for image in made]), embedded, dim=1)
        line += f"   cosine {cosine.mean():.5f}, least {cosine.min():.5f}"
    print(line, flush=True)
    whole = rate(lambda: [tensor_path(file, size) for file in files], len(files))
    differ = difference([to_pil_image(tensor_path(file, size)) for file in files], reference)
    print(f"  {'torchvision, resize as tensor':46}   with resize {whole:6.0f}/s   pixels differ by {differ:.4f}")


def difference(images: list[Image.Image], others: list[Image.Image]) -> float:
    """Mean absolute difference of all pixels, of 255."""
    pairs = zip(images, others, strict=True)
    return float(np.mean([np.abs(np.asarray(a, int) - np.asarray(b, int)).mean() for a, b in pairs]))


def decoders(size: int) -> dict[str, Decoder]:
    """Ways to decode a JPEG for a model that takes `size` pixels."""

    def draft(file: bytes, least: int) -> Image.Image:
        with Image.open(io.BytesIO(file)) as image:
            image.draft("RGB", (least, least))
            return image.convert("RGB")

    def torchvision_jpeg(file: bytes) -> Image.Image:
        data = torch.frombuffer(bytearray(file), dtype=torch.uint8)
        decoded = torchvision.io.decode_jpeg(data, torchvision.io.ImageReadMode.RGB)
        return Image.fromarray(decoded.permute(1, 2, 0).numpy())

    return {
        "Pillow (mmmono)": decode_image,
        "draft": lambda file: draft(file, size),
        "draft, at least twice as large": lambda file: draft(file, 2 * size),
        "torchvision": torchvision_jpeg,
    }


def resized(image: Image.Image, size: int) -> Image.Image:
    """Resize the short side and take the middle, as CLIP does."""
    short = min(image.size)
    image = image.resize((round(image.width * size / short), round(image.height * size / short)), BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def tensor_path(file: bytes, size: int) -> torch.Tensor:
    """Decode, resize and crop without Pillow."""
    data = torch.frombuffer(bytearray(file), dtype=torch.uint8)
    image = torchvision.io.decode_jpeg(data, torchvision.io.ImageReadMode.RGB)
    return v2.functional.center_crop(
        v2.functional.resize(image, [size], v2.InterpolationMode.BICUBIC, antialias=True), [size, size]
    )


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


def rate(work: Callable[[], object], count: int) -> float:
    times = []
    for _ in range(ROUNDS):
        begun = time.thread_time()
        work()
        times.append(time.thread_time() - begun)
    return count / min(times)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="+")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--side", type=int, default=224, help="pixels of the model's input")
    parser.add_argument("--artifacts", help="root with a fitted DrawingCLIP")
    chosen = parser.parse_args()
    main(chosen.shards, chosen.images, chosen.side, chosen.artifacts)
