"""Every preset, and every command in README and docs, as far as it goes without weights.

Commands run in one process against a hub on loopback that has everything but weights, until they would build something.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from mmmono.core.artifacts import write_text_atomically
from mmmono.pipeline.running import CONF
from tests.rehearsal.commands import REPOSITORY, Entry, behind_make, parse
from tests.rehearsal.drawn_pairs import write_coco, write_shard
from tests.rehearsal.hub import TOKEN, Hub

# Commands of docs/extending.md are run by test_extending.py, in a copy of the project that has what it adds.
PAGES = [REPOSITORY / "README.md", *(p for p in sorted((REPOSITORY / "docs").glob("*.md")) if p.name != "extending.md")]
PRESETS = sorted((CONF / "paper").glob("*.yaml"))
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Programs of others, and shell words, that pages also name.
OTHERS = ("cd", "export", "git", "hf", "mmmono", "pip", "ray", "sbatch", "srun", "tensorboard", "torchrun", "wandb")
# What may stop a command besides an artifact that it would build: weights, or the GPU that a setting is for.
WANTING = r"cannot (be had|download|be loaded)|but device=cpu|but PyTorch sees no GPU here|nothing answers there"
SHOW = ("report", "explorer", "sweep", "dashboard")  # what only looks at what is there, and finds nothing


@dataclass(frozen=True)
class Printed:
    """A command as a page or a preset prints it."""

    where: str
    line: str


def lines_of(block: str) -> list[str]:
    """The commands of a page's shell blocks, with its variables put in."""
    lines, variables = [], {}
    for line in block.replace("\\\n", " ").splitlines():
        if match := re.fullmatch(r"([A-Z]+)=\"(.*)\"", line.strip()):
            variables[match[1]] = match[2]
        elif line.strip() and not line.startswith("#"):
            for name, value in variables.items():
                line = line.replace(f"${name}", value)
            lines.append(line.strip())
    return lines


def printed_commands() -> list[Printed]:
    """The lines of all shell blocks, and the commands in the presets' heads."""
    found = []
    for page in PAGES:
        text = page.read_text()
        found += [Printed(page.name, line) for line in lines_of("\n".join(re.findall(BLOCK, text)))]
        found += [
            Printed(page.name, command) for command in re.findall(r"`((?:make|python experiments/)[^`…]*)`", text)
        ]
    for preset in PRESETS:
        command = re.search(r"python experiments/\w+\.py \+paper=\w+(?: \w+\.\w+=\S+)*", preset.read_text())
        assert command, f"{preset.name} names no command"
        found.append(Printed(preset.name, command[0]))
    return list(dict.fromkeys(found))


COMMANDS = printed_commands()


def entries_of(line: str) -> list[Entry] | None:
    """The entrypoints that a line runs; None where it runs something else."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z][A-Z0-9_]*=.*", words[0]):
        del words[0]
    if words and words[0] == "make":
        return behind_make(words[1:])
    entry = parse(line.replace("…", ""), braces=True)
    return None if entry is None else [entry]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run: with the files that they name, and a hub's repositories without weights."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "data").mkdir()
    for number in range(5):
        for name in ("train-", "shard-", ""):
            write_shard(folder / "data" / f"{name}{number:04d}.tar", 20 * number, 20)
    write_coco(folder / "coco", train=4, val=2)
    for name in ("checkpoint.pt", "mine.pt", "declip_r50.pth.tar"):
        torch.save({"weight": torch.zeros(1)}, folder / name)
    for side in ("img_emb", "text_emb"):  # embeddings that are there already
        (folder / "clip_pairs" / side).mkdir(parents=True)
        np.save(folder / "clip_pairs" / side / f"{side}_0.npy", np.ones((20, 8), np.float32))
    (folder / "my_requests.txt").write_text("describe how to bake bread\n")
    for name in ("horse.jpg", "photo.jpg"):
        Image.new("RGB", (60, 40), (200, 90, 30)).save(folder / name)
    (folder / "cc3m").mkdir()
    for split in ("train", "validation"):
        write_shard(folder / "cc3m" / f"cc3m-{split}-0000.tar", 0, 20)
    repositories(folder / "hub")
    return folder


def repositories(root: Path) -> None:
    """Configurations alone."""
    for name, pipeline, part, width in (
        ("stable-diffusion-2", "StableDiffusionPipeline", "text_encoder", {"hidden_size": 1024}),
        ("stable-diffusion-2-1-unclip", "StableUnCLIPImg2ImgPipeline", "image_encoder", {"projection_dim": 1024}),
    ):
        folder = root / "models" / "sd2-community" / name
        (folder / part).mkdir(parents=True)
        (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
        (folder / part / "config.json").write_text(json.dumps(width))
    for name in (
        "timm/resnet50_clip.openai", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "timm/vit_base_patch16_224.augreg_in21k",
        "sentence-transformers/all-MiniLM-L6-v2", "llava-hf/llava-1.5-7b-hf",
        "touchtech/fashion-images-gender-age-vit-large-patch16-224-in21k-v3",
    ):  # fmt: skip
        (root / "models" / name).mkdir(parents=True)
        (root / "models" / name / "config.json").write_text("{}")
    shards = root / "datasets" / "pixparse" / "cc3m-wds"
    shards.mkdir(parents=True)
    (shards / ".gated").touch()
    for split, count in (("train", 576), ("validation", 16)):
        write_shard(shards / f"cc3m-{split}-0000.tar", 0, 20)
        repeats = json.loads(file.read_text()) if (file := shards / ".repeat.json").exists() else {}
        file.write_text(json.dumps(repeats | {f"cc3m-{split}-{{:04d}}.tar": count}))


def run_until_built(place: Path, entries: list[Entry]) -> list[dict[str, Any]]:
    """Outcomes of the entries, in one process; see tests/until_built.py."""
    commands, outcomes = place / "commands.json", place / "outcomes.json"
    outcomes.unlink(missing_ok=True)
    content = [
        {
            "entrypoint": entry.entrypoint,
            "overrides": [override.replace("/path/to/", f"{place}/") for override in entry.overrides],
            "variables": entry.variables,
        }
        for entry in entries
    ]
    commands.write_text(json.dumps(content))
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("HF_", "DEEPSEEK_", "OPENAI_", "WANDB_"))
    }
    with Hub(place / "hub") as hub:
        environment = kept | {
            "PYTHONPATH": str(REPOSITORY), "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(place / "hf"),
            "DEEPSEEK_API_KEY": "sk-rehearsal", "DEEPSEEK_BASE_URL": "http://127.0.0.1:9",
            "OPENAI_API_KEY": "sk-rehearsal", "OPENAI_BASE_URL": "http://127.0.0.1:9",
            "WANDB_MODE": "offline", "NO_PROXY": "*", "HF_HUB_DISABLE_TELEMETRY": "1",
        }  # fmt: skip
        run = subprocess.run(
            [sys.executable, "-m", "tests.until_built", str(commands), str(outcomes)],
            cwd=place, env=environment, capture_output=True, text=True, timeout=900,
        )  # fmt: skip
    assert outcomes.exists(), run.stderr[-2000:]
    return json.loads(outcomes.read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def outcomes(place: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Of every entrypoint behind every command, each once, by one of the processes of a test run."""
    entries = [entry for command in COMMANDS for entry in entries_of(command.line) or ()]
    distinct = {named(entry): entry for entry in entries}
    own = tmp_path_factory.getbasetemp()
    file = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "commands-outcomes.json"
    with FileLock(f"{file}.lock"):
        if not file.exists():
            write_text_atomically(file, json.dumps(run_until_built(place, list(distinct.values()))))
    return dict(zip(distinct, json.loads(file.read_text()), strict=True))


def named(entry: Entry) -> str:
    """What tells an entry apart."""
    return f"{entry} {entry.variables}"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: f"{c.where}: {c.line[:80]}")
def test_a_printed_command_passes_all_its_checks(command: Printed, outcomes: dict[str, dict[str, Any]]) -> None:
    entries = entries_of(command.line)
    if entries is None:
        words = shlex.split(command.line, comments=True)
        word = next(word for word in words if not re.fullmatch(r"[A-Z][A-Z0-9_]*=.*", word))
        script = next((w for w in words if w.endswith(".py")), None)
        assert word in OTHERS or (script and (REPOSITORY / script).exists()), f"{command.line} is no command of ours"
        return
    for entry in entries:
        outcome = outcomes[named(entry)]
        errors = [line for line in outcome["errors"].splitlines() if line.startswith("error:")]
        if outcome["reached"] or outcome["status"] == 0 or entry.entrypoint in SHOW:
            assert outcome["status"] in (0, 1), outcome["errors"][-2000:]
            continue
        assert len(errors) == 1, f"{entry}: {outcome['errors'][-2000:]}"
        assert re.search(WANTING, errors[0]), f"{entry}: {errors[0]}"
