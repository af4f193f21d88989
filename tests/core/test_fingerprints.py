from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from mmmono.core import fingerprints
from mmmono.core.fingerprints import file_fingerprint, files_fingerprint, folder_fingerprint, weights_identity

OLD = 1_000_000_000


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of this is remembered elsewhere, and files count as settled at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fingerprints, "_remembered", {})
    monkeypatch.setattr(fingerprints, "SETTLED_SECONDS", -1.0)
    return tmp_path / "cache" / "mmmono" / "fingerprints"


def no_reading(piece: tuple[Path, int]) -> bytes:
    raise AssertionError(f"{piece} was read again")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(min_size=1, max_size=200), place=st.integers(0, 199), piece=st.integers(1, 64))
def test_every_byte_counts(tmp_path: Path, content: bytes, place: int, piece: int) -> None:
    place %= len(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprints, "PIECE", piece)
        (tmp_path / "a").write_bytes(content)
        (tmp_path / "b").write_bytes(content)
        assert file_fingerprint(tmp_path / "a") == file_fingerprint(tmp_path / "b")
        changed = bytearray(content)
        changed[place] ^= 1
        (tmp_path / "b").write_bytes(changed)
        assert file_fingerprint(tmp_path / "a") != file_fingerprint(tmp_path / "b")
        (tmp_path / "b").write_bytes(content + b"\0")
        assert file_fingerprint(tmp_path / "a") != file_fingerprint(tmp_path / "b")


def test_a_fine_tune_that_differs_in_a_middle_layer_alone(tmp_path: Path) -> None:
    weights = {f"layer{i}": torch.full((200, 200), float(i)) for i in range(12)}
    save_file(weights, tmp_path / "base.safetensors")
    weights["layer6"][100, 100] += 1
    save_file(weights, tmp_path / "tuned.safetensors")
    base, tuned = (tmp_path / f"{name}.safetensors" for name in ("base", "tuned"))
    ends = [(path.read_bytes()[: 1 << 16], path.read_bytes()[-(1 << 16) :]) for path in (base, tuned)]
    assert ends[0] == ends[1]
    assert file_fingerprint(base) != file_fingerprint(tuned)


def test_a_file_is_read_once_in_a_process_and_once_on_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    file = tmp_path / "weights"
    file.write_bytes(os.urandom(1000))
    first = file_fingerprint(file)
    monkeypatch.setattr(fingerprints, "_piece_digest", no_reading)
    assert file_fingerprint(file) == first
    monkeypatch.setattr(fingerprints, "_remembered", {})  # as another process has it
    assert file_fingerprint(str(file)) == first
    assert len([path for path in own_cache.rglob("*") if path.is_file()]) == 1


def test_a_change_is_seen_though_size_and_time_are_as_before(tmp_path: Path) -> None:
    file = tmp_path / "shard.tar"
    file.write_bytes(b"a" * 1000)
    os.utime(file, (OLD, OLD))
    first = file_fingerprint(file)
    file.write_bytes(b"b" * 1000)
    os.utime(file, (OLD, OLD))
    assert file_fingerprint(file) != first


def test_a_file_that_was_just_written_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    monkeypatch.setattr(fingerprints, "SETTLED_SECONDS", 1000.0)
    (tmp_path / "new").write_bytes(b"new")
    file_fingerprint(tmp_path / "new")
    assert not own_cache.exists()


@pytest.mark.parametrize("cache", ["a file", "nonsense"])
def test_a_cache_that_is_of_no_use_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path, cache: str
) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"weights")
    first = file_fingerprint(file)
    if cache == "a file":
        (tmp_path / "blocked").write_text("no folder")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "blocked"))
    else:
        for entry in own_cache.rglob("*"):
            if entry.is_file():
                entry.write_bytes(b"\xff\xfe nonsense")
    monkeypatch.setattr(fingerprints, "_remembered", {})
    assert file_fingerprint(file) == first


def test_processes_at_once_agree(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(os.urandom(100_000))
    os.utime(file, (OLD, OLD))
    code = f"from mmmono.core.fingerprints import file_fingerprint; print(file_fingerprint({str(file)!r}))"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert {process.communicate()[0].strip() for process in running} == {file_fingerprint(file)}


def test_folders_are_their_names_and_contents(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "unet" / "weights.bin").write_bytes(b"1234")
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "two" / ".cache").mkdir()
    (tmp_path / "two" / ".cache" / "lock").write_text("hidden")
    assert folder_fingerprint(tmp_path / "one") == folder_fingerprint(tmp_path / "two")
    assert weights_identity(str(tmp_path / "one")) == folder_fingerprint(tmp_path / "one")
    assert weights_identity("org/name") == "org/name"
    (tmp_path / "two" / "unet" / "weights.bin").rename(tmp_path / "two" / "unet" / "other.bin")
    assert folder_fingerprint(tmp_path / "one") != folder_fingerprint(tmp_path / "two")


def test_what_lies_in_which_file_counts(tmp_path: Path) -> None:
    contents = {"a": b"12", "b": b"34", "c": b"1", "d": b"234"}
    files = {name: tmp_path / name for name in contents}
    for name, content in contents.items():
        files[name].write_bytes(content)
    ways = [{"x": files["a"], "y": files["b"]}, {"x": files["b"], "y": files["a"]}, {"x": files["c"], "y": files["d"]}]
    assert len({files_fingerprint(way) for way in ways}) == 3
    assert files_fingerprint(dict(reversed(ways[0].items()))) == files_fingerprint(ways[0])


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        file_fingerprint(tmp_path / "nowhere")
