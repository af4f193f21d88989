"""What is killed: commands as a user types them, on inputs small enough to run many times."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

Arguments = tuple[str, ...]

SYNTHETIC: Arguments = ("dataset=synthetic", "dataset.pairs=3000", "dataset.dim=32")
TRAINING: Arguments = (
    "trainer.max_steps=120", "trainer.min_steps=0", "trainer.val_check_interval=20", "training.checkpoint_every=20",
    "training.snapshot_every=40",
)  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    """One kind of work that may die at any moment.

    Attributes:
        name: in the table.
        prepare: commands that are run once, before, into the root that every trial starts from.
        command: the command that is killed: an entrypoint and its overrides.
        needs_drawingclip: whether the root must hold the fitted DrawingCLIP.
        inputs: writes files that the command reads into the folder it is given; `{inputs}` in overrides is that folder.
    """

    name: str
    command: Arguments
    prepare: tuple[Arguments, ...] = ()
    needs_drawingclip: bool = False
    inputs: Callable[[Path], None] | None = None


def write_shards(folder: Path) -> None:
    """Eight shards of twelve images of noise; one image cannot be read."""
    generator = np.random.default_rng(0)
    for shard in range(8):
        with tarfile.open(folder / f"s-{shard}.tar", "w") as tar:
            for i in range(12):
                image = _noise(generator) if (shard, i) != (3, 3) else b"no image"
                for name, data in (("jpg", image), ("txt", f"noise {i} of shard {shard}".encode())):
                    member = tarfile.TarInfo(f"{i:03}.{name}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def _noise(generator: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(generator.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def write_requests(folder: Path) -> None:
    """Harmless requests with the concept that an attacked image is to be taken for."""
    rows = "request,concept,image\nbake bread,bread,openmoji:1F35E\nfly a kite,kite,openmoji:1FA81\n"
    (folder / "requests.csv").write_text(rows)


OPENMOJI: Arguments = ("dataset.limit=400",)
ATTACK: Arguments = (
    *OPENMOJI, "adversarial.requests={inputs}/requests.csv", "mds.min_pairs=3", "partition.n_sigma=1.2",
    "adversarial.runs=1", "adversarial.attack.steps=3", "adversarial.defense.steps=2", "adversarial.sizes=[1.0]",
    "adversarial.benign.words=[flag]", "adversarial.benign.count=2", "adversarial.all_features=false",
    "adversarial.batch_size=1",
)  # fmt: skip

SWEPT: Arguments = (
    "trainer.max_steps=40", "trainer.min_steps=0", "trainer.val_check_interval=20", "training.checkpoint_every=20",
    "training.snapshot_every=null", "features=sae", "features.k=2,4,8",
)  # fmt: skip
RESAMPLED: Arguments = ("certainty.n_permutations=500", "certainty.n_bootstrap=200")

SCENARIOS = (
    Scenario(
        "extract",
        ("extract", "dataset=webdataset", "dataset.shards={inputs}/s-{{0..7}}.tar"),
        needs_drawingclip=True,
        inputs=write_shards,
    ),
    Scenario("train", ("train", *SYNTHETIC, *TRAINING, "features=[sae,ncl]")),
    Scenario("sweep", ("train", "-m", *SYNTHETIC, *SWEPT)),
    Scenario("certainty", ("certainty", *SYNTHETIC, *TRAINING, "features=[raw,sae]", *RESAMPLED)),
    Scenario("consensus", ("consensus", *SYNTHETIC, *TRAINING, "features=sae", "consensus.n_seeds=2")),
    Scenario(
        "adversarial",
        ("adversarial", *ATTACK),
        prepare=(("mds", *OPENMOJI, "features=raw", "mds.min_pairs=3", "partition.n_sigma=1.2"),),
        needs_drawingclip=True,
        inputs=write_requests,
    ),
    Scenario(
        "report",
        ("report", *SYNTHETIC, *TRAINING, "features=[raw,sae]"),
        prepare=(
            ("mds", *SYNTHETIC, *TRAINING, "features=[raw,sae]"),
            ("faithfulness", *SYNTHETIC, *TRAINING, "features=sae"),
        ),
    ),
)
