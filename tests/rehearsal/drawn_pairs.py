"""Images of colored shapes with captions, as shards in img2dataset's layout and as a folder of COCO."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLORS = {
    "red": (214, 48, 49), "green": (39, 174, 96), "blue": (41, 98, 255), "yellow": (253, 203, 50), "white": (245, 246, 250),
    "black": (30, 30, 34), "orange": (243, 115, 20), "purple": (108, 52, 181),
}  # fmt: skip
# Places by the color of the background; the attacks of Section 4.2 look for such scenery.
PLACES = {
    "beach": (237, 201, 130),
    "forest": (22, 84, 44),
    "sea": (20, 60, 140),
    "desert": (200, 120, 60),
    "night": (12, 12, 40),
}
SHAPES = ("circle", "square", "triangle", "star")
GROUPS = {"circle": "toy", "square": "furniture", "triangle": "sign", "star": "decoration"}  # supercategories
SIZE = (96, 80)


@dataclass(frozen=True)
class DrawnPair:
    """An image with its caption."""

    image: Image.Image
    caption: str
    shape: str

    def jpeg(self) -> bytes:
        """The image as a file."""
        buffer = io.BytesIO()
        self.image.save(buffer, "JPEG", quality=90)
        return buffer.getvalue()


def draw_pair(seed: int) -> DrawnPair:
    """One or more shapes before a place, the same for a seed."""
    rng = np.random.default_rng(seed)
    place, color, shape = (str(rng.choice(list(names))) for names in (PLACES, COLORS, SHAPES))
    width, height = SIZE
    ground = np.linspace(0.6, 1.3, height)[:, None, None] * np.array(PLACES[place]) + rng.normal(
        0, 12, (height, width, 3)
    )
    image = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    count = int(rng.integers(1, 4))
    for _ in range(count):
        radius = int(rng.integers(8, 26))
        x, y = int(rng.integers(radius, width - radius)), int(rng.integers(radius, height - radius))
        _draw_shape(pen, shape, x, y, radius, COLORS[color])
    number = ("a", "two", "three")[count - 1]
    plural = "s" if count > 1 else ""
    size = ("small", "large")[int(rng.integers(2))]
    return DrawnPair(image, f"{number} {size} {color} {shape}{plural} at the {place}, image {seed}", shape)


def _draw_shape(pen: ImageDraw.ImageDraw, shape: str, x: int, y: int, radius: int, color: tuple[int, int, int]) -> None:
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        pen.ellipse(box, fill=color)
    elif shape == "square":
        pen.rectangle(box, fill=color)
    else:
        corners = 3 if shape == "triangle" else 10
        angles = np.arange(corners) * 2 * np.pi / corners - np.pi / 2
        radii = np.where(np.arange(corners) % 2, radius * 0.45, radius) if shape == "star" else np.full(corners, radius)
        points = zip(x + radii * np.cos(angles), y + radii * np.sin(angles), strict=True)
        pen.polygon([(float(a), float(b)) for a, b in points], fill=color)


def write_shard(path: Path, first: int, pairs: int) -> None:
    """A tar shard with `.jpg`, `.json` and `.txt` a pair, as img2dataset writes it."""
    with tarfile.open(path, "w") as tar:
        for seed in range(first, first + pairs):
            pair, key = draw_pair(seed), f"{seed:09d}"
            sidecar = {"caption": pair.caption, "url": f"http://images/{key}.jpg", "key": key, "status": "success",
                       "width": SIZE[0], "height": SIZE[1], "exif": "{}", "error_message": None}  # fmt: skip
            files = {"jpg": pair.jpeg(), "json": json.dumps(sidecar).encode(), "txt": pair.caption.encode()}
            for extension, data in files.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def write_coco(root: Path, train: int, val: int) -> None:
    """`annotations/*.json` with captions and instances, and a folder of images for each split."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    categories = [{"id": i + 1, "name": s, "supercategory": GROUPS[s]} for i, s in enumerate(SHAPES)]
    for split, first, count in (("train", 500_000, train), ("val", 600_000, val)):
        folder = root / f"{split}2017"
        folder.mkdir(exist_ok=True)
        images, captions, instances = [], [], []
        for seed in range(first, first + count):
            pair, name = draw_pair(seed), f"{seed:012d}.jpg"
            (folder / name).write_bytes(pair.jpeg())
            images.append({"id": seed, "file_name": name, "width": SIZE[0], "height": SIZE[1], "license": 1})
            captions += [
                {"id": 10 * seed + i, "image_id": seed, "caption": text}
                for i, text in enumerate((pair.caption, f"a photo of {pair.caption}"))
            ]
            category = SHAPES.index(pair.shape) + 1
            box = {"area": 400.0, "bbox": [0, 0, 20, 20], "iscrowd": 0}
            instances.append({"id": seed, "image_id": seed, "category_id": category, **box})
        for kind, entries in (("captions", captions), ("instances", instances)):
            content = {"images": images, "annotations": entries, "categories": categories}
            (root / "annotations" / f"{kind}_{split}2017.json").write_text(json.dumps(content))
