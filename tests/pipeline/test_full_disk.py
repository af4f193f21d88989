"""A disk that is really full: a small one of its own, in memory."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from safetensors import SafetensorError

from mmmono.commands.publish.command import Settings, write_folder
from mmmono.core.errors import DictionaryError, MmmonoError
from mmmono.dictionaries import Dictionary
from mmmono.pipeline.fitting import WholeCheckpoints
from tests.pipeline.conftest import Command
from tests.pipeline.test_entrypoints import only

Resize = Callable[[str], None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Resize]]:
    """A disk, and how to give it another size."""
    path = tmp_path / "disk"
    path.mkdir()

    def mount(options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
        return shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0

    if not mount("size=1m"):
        pytest.skip("mounting a small disk needs root and a kernel that allows it")

    def resize(size: str) -> None:
        assert mount(f"remount,size={size}")

    yield path, resize
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def expect_no_space(command: Command, *arguments: str) -> None:
    run = command(*arguments)
    assert run.status == 1
    assert run.err.strip().splitlines()[-1].startswith("error: no space left under ")
    assert "Traceback" not in run.err


def test_extraction_and_training_stop_in_one_line_and_go_on(
    command: Command, artifacts: Path, disk: tuple[Path, Resize]
) -> None:
    root, resize = disk
    (root / "models").symlink_to(artifacts / "models")
    arguments = (f"artifacts={root}", "dataset.limit=400")

    resize("300k")  # the embeddings take 800 kB
    expect_no_space(command, "extract", *arguments)
    assert not any(path.is_dir() and path.suffix != ".partial" for path in (root / "features").iterdir())

    resize("2500k")
    assert command("extract", *arguments).status == 0
    # The weights of an SAE take 2 MB, a checkpoint three times as much.
    training = (
        "train",
        *arguments,
        "features=sae",
        "trainer.max_steps=20",
        "trainer.min_steps=0",
        "trainer.val_check_interval=10",
        "training.checkpoint_every=10",
    )
    expect_no_space(command, *training)
    assert not any(path.is_dir() and path.suffix != ".partial" for path in (root / "dictionaries").iterdir())

    resize("64m")
    again = command(*training)
    assert again.status == 0, again.err
    Dictionary.from_pretrained(only(root / "dictionaries", "sae-*"))


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(disk: tuple[Path, Resize]) -> None:
    root, _ = disk
    file = root / "checkpoints" / "last.ckpt"
    checkpoints = WholeCheckpoints()
    checkpoints.save_checkpoint({"step": 1}, file)
    with pytest.raises((OSError, RuntimeError)):
        checkpoints.save_checkpoint({"step": 2, "weights": torch.zeros(1_000_000)}, file)
    assert torch.load(file, weights_only=True) == {"step": 1}
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]


def test_a_checkpoint_that_is_not_whole_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power failure, say: a rename may have come to the disk before the content."""
    file = tmp_path / "last.ckpt"
    checkpoints = WholeCheckpoints()
    checkpoints.save_checkpoint({"step": 1, "weights": torch.zeros(1000)}, file)
    whole = file.read_bytes()
    assert checkpoints.load_checkpoint(file, weights_only=True)["step"] == 1
    for content in (b"", whole[: len(whole) // 2], whole[:-200], bytes(len(whole)), b"text"):
        file.write_bytes(content)
        with pytest.raises(
            DictionaryError, match=r"last\.ckpt is no whole checkpoint \(.+\): remove it, and run the same"
        ):
            checkpoints.load_checkpoint(file, weights_only=True)
    file.write_bytes(whole)
    with monkeypatch.context() as patch:  # hours of training are not to be removed because a disk is away for a moment
        patch.setattr(TorchCheckpointIO, "load_checkpoint", lambda *_, **__: os.close(-1))
        with pytest.raises(OSError, match="Bad file descriptor"):
            checkpoints.load_checkpoint(file, weights_only=True)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        checkpoints.load_checkpoint(file, weights_only=True)


def test_what_is_published_to_a_full_disk_or_into_a_file_names_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(workspace: object, artifact: object, folder: Path, *_: object) -> None:
        folder.mkdir(parents=True)
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    settings = Settings(str(tmp_path / "published"), None, False, None)
    monkeypatch.setattr("mmmono.commands.publish.command._write", full)
    with pytest.raises(MmmonoError, match="no space left under .*published: .* publish.folder=/path/with/room"):
        write_folder(None, None, Path(settings.folder) / "sae", settings)  # type: ignore[arg-type]
    assert not list(Path(settings.folder).iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(MmmonoError, match="publish.folder=/path elsewhere"):
        write_folder(None, None, tmp_path / "file" / "sae", settings)  # type: ignore[arg-type]
