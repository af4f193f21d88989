import contextlib
import errno
import json
import multiprocessing as mp
import os
import platform
import re
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmmono.core import locks
from mmmono.core.artifacts import Artifact, Artifacts, FinishedArtifacts, SharedWork, digest, write_text_atomically
from mmmono.core.errors import MissingArtifactError, MmmonoError
from mmmono.core.timing import TIMING_FILE, machine, read_timing
from mmmono.core.versions import VERSIONS

RECIPE = {"model": "a", "k": 32}


@given(recipe=st.dictionaries(st.text(), st.integers() | st.text() | st.none(), min_size=2))
def test_digest_ignores_the_order_of_keys_and_nothing_else(recipe: dict[str, object]) -> None:
    assert digest({key: recipe[key] for key in reversed(list(recipe))}) == digest(recipe)
    assert digest(recipe | {next(iter(recipe)): "something that was not there"}) != digest(recipe)


def test_builds_once_and_keeps_the_recipe(tmp_path: Path) -> None:
    calls = []

    def make(directory: Path) -> None:
        calls.append(directory)
        (directory / "data").write_text("x")

    artifacts = Artifacts(tmp_path)
    first, second = (artifacts.build("things", "it", RECIPE, make) for _ in range(2))
    assert (first.built, second.built, len(calls)) == (True, False, 1)
    assert first.path == second.path == artifacts.path("things", "it", RECIPE)
    assert json.loads((first.path / "recipe.json").read_text()) == {**RECIPE, "version": 1}
    assert not calls[0].exists()


def test_what_another_process_removes_meanwhile_is_not_found(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    made = [artifacts.build("things", "it", {"k": k}, lambda folder: None) for k in range(3)]
    found = artifacts.find("things")
    first = next(found).path
    shutil.rmtree(next(one.path for one in made if one.path != first))
    assert len(list(found)) == 1


class Kill:
    """Ends a process before its n-th change of what folders hold; removing a folder is a change for each of its files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.left = at
        for owner, name in ((Path, "rename"), (Path, "replace"), (Path, "unlink"), (os, "unlink"), (os, "rmdir")):
            monkeypatch.setattr(owner, name, self.counted(getattr(owner, name)))

    def counted(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def counts(*given: Any, **more: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt  # from now on at every change: a killed process does nothing any more
            return change(*given, **more)

        return counts


@pytest.mark.parametrize("resumable", [False, True])
def test_a_kill_between_any_two_changes_leaves_an_artifact_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumable: bool
) -> None:
    """And what was complete is not made again."""
    made: list[Path] = []

    def make(directory: Path) -> None:
        made.append(directory)
        (directory / "data").write_text("x")

    for at in range(100):
        root = tmp_path / str(at)
        made.clear()
        with monkeypatch.context() as patched:
            kill = Kill(patched, at)
            with contextlib.suppress(KeyboardInterrupt):
                Artifacts(root).build("things", "it", RECIPE, make, resumable)
            ended = kill.left >= 0
        complete = any(root.glob("things/*.partial/recipe.json"))
        assert all((found.path / "data").exists() for found in Artifacts(root).find("things"))
        assert (Artifacts(root).build("things", "it", RECIPE, make, resumable).path / "data").exists()
        assert len(made) == 1 or not complete
        if ended:
            return
    pytest.fail("never ended")


def test_a_rebuild_that_is_killed_leaves_the_artifact_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the last moment, and then the new one: it is never neither."""
    make = lambda content: lambda folder: (folder / "data").write_text(content)  # noqa: E731
    for at in range(100):
        root = tmp_path / str(at)
        Artifacts(root).build("things", "it", RECIPE, make("old"))
        with monkeypatch.context() as patched:
            kill = Kill(patched, at)
            with contextlib.suppress(KeyboardInterrupt):
                Artifacts(root, ["things"]).build("things", "it", RECIPE, make("new"))
            if kill.left >= 0:
                return
        there = Artifacts(root).build("things", "it", RECIPE, lambda _: pytest.fail("made a third time"))
        assert (there.path / "data").read_text() in ("old", "new")
    pytest.fail("never ended")


def test_files_that_are_read_meanwhile_hold_up_no_rebuild(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network's disk they stay under another name, and so does their folder."""
    rmtree = shutil.rmtree

    def busy(folder: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise OSError(errno.ENOTEMPTY, "Directory not empty")

    for content in ("first", "second", "third"):
        monkeypatch.setattr(shutil, "rmtree", busy if content != "third" else rmtree)
        rebuilding = Artifacts(tmp_path, ["things"])
        made = rebuilding.build("things", "it", RECIPE, lambda folder, of=content: (folder / "data").write_text(of))  # type: ignore[misc]
        assert (made.path / "data").read_text() == content
        assert [found.path for found in Artifacts(tmp_path).find("things")] == [made.path]
    assert [folder for folder in made.path.parent.iterdir() if folder.is_dir()] == [made.path]


def test_what_several_have_completed_is_put_in_place_as_it_is(tmp_path: Path) -> None:
    """The process that completed it was killed before its last step."""
    artifacts = Artifacts(tmp_path)
    final = artifacts.path("things", "it", RECIPE)
    partial = final.with_name(f"{final.name}.partial")
    partial.mkdir(parents=True)
    (partial / "recipe.json").write_text("{}")

    def again(folder: Path) -> bool:
        pytest.fail("begun again")

    made = artifacts.build_together("things", "it", RECIPE, SharedWork(again, again, again))
    assert made is not None
    assert [file.name for file in made.path.iterdir()] == ["recipe.json"]


@pytest.mark.parametrize("resumable", [False, True])
def test_an_interrupted_build_is_never_mistaken_for_a_whole_one(tmp_path: Path, resumable: bool) -> None:
    found = []

    def dies(directory: Path) -> None:
        (directory / "half").write_text("x")
        raise KeyboardInterrupt

    def finishes(directory: Path) -> None:
        found.extend(file.name for file in directory.iterdir() if file.name != TIMING_FILE)

    artifacts = Artifacts(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        artifacts.build("things", "it", RECIPE, dies, resumable)
    assert not artifacts.path("things", "it", RECIPE).exists()
    assert artifacts.build("things", "it", RECIPE, finishes, resumable).built
    assert found == (["half"] if resumable else [])


def test_rebuilds_only_the_kind_asked_for_and_only_once(tmp_path: Path) -> None:
    def make(directory: Path) -> None:
        (directory / "data").write_text("x")

    Artifacts(tmp_path).build("features", "f", RECIPE, make)
    Artifacts(tmp_path).build("results", "r", RECIPE, make)
    again = Artifacts(tmp_path, rebuild=("results",))
    built = [again.build(*what, RECIPE, make).built for what in (("features", "f"), ("results", "r"), ("results", "r"))]
    assert built == [False, True, False]


def _build_slowly(root: str) -> None:
    def make(directory: Path) -> None:
        with (Path(root) / "builds").open("a") as log:
            log.write("built\n")
        time.sleep(0.3)

    Artifacts(root).build("things", "it", RECIPE, make)


def test_processes_that_need_the_same_build_it_once(tmp_path: Path) -> None:
    context = mp.get_context("spawn")
    processes = [context.Process(target=_build_slowly, args=(str(tmp_path),)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "builds").read_text() == "built\n"


@pytest.mark.parametrize(("code", "message"), [(errno.ENOSPC, "no space left"), (errno.EROFS, "cannot write")])
def test_a_full_or_read_only_disk_says_what_to_do(tmp_path: Path, code: int, message: str) -> None:
    def make(directory: Path) -> None:
        raise OSError(code, "disk trouble")

    with pytest.raises(MmmonoError, match=f"{message}.*artifacts="):
        Artifacts(tmp_path).build("things", "it", RECIPE, make)
    assert not Artifacts(tmp_path).path("things", "it", RECIPE).exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError("32768 requested and 4096 written"),
        OSError("Not enough free space to write 32000000 bytes after offset 128"),
        ValueError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["numpy", "numpy, allocating", "safetensors"],
)
def test_a_full_disk_is_known_by_what_libraries_say(tmp_path: Path, error: Exception) -> None:
    def make(directory: Path) -> None:
        raise error

    with pytest.raises(MmmonoError, match="no space left"):
        Artifacts(tmp_path).build("things", "it", RECIPE, make)


def test_other_errors_that_speak_of_requests_are_no_full_disk(tmp_path: Path) -> None:
    def make(directory: Path) -> None:
        raise ValueError("the model was requested and is not there")

    with pytest.raises(ValueError, match="was requested and is not there"):
        Artifacts(tmp_path).build("things", "it", RECIPE, make)


def test_a_full_disk_is_known_behind_another_error(tmp_path: Path) -> None:
    """As torch.save raises it."""

    def make(directory: Path) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space")
        except OSError:
            raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904

    with pytest.raises(MmmonoError, match="no space left"):
        Artifacts(tmp_path).build("things", "it", RECIPE, make)


def test_other_errors_pass_through(tmp_path: Path) -> None:
    def make(directory: Path) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        Artifacts(tmp_path).build("things", "it", RECIPE, make)


def test_text_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file.json"
    write_text_atomically(target, "old")

    def fails(self: Path, text: str, encoding: str) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Path, "write_text", fails)
    with pytest.raises(OSError, match="full"):
        write_text_atomically(target, "new")
    assert target.read_text() == "old"
    assert [file.name for file in target.parent.iterdir()] == ["file.json"]


def test_text_is_written_by_processes_with_one_number_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In containers that share a folder, processes have the same numbers."""
    replace = Path.replace

    def between(self: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        write_text_atomically(target, "second")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", between)
    write_text_atomically(tmp_path / "file", "first")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("file", "first")]


@pytest.mark.parametrize("writes", [True, False])
@pytest.mark.parametrize("resumable", [True, False])
def test_a_folder_that_is_removed_while_it_is_made_is_no_artifact(
    tmp_path: Path, writes: bool, resumable: bool
) -> None:
    """It would be one with a recipe alone, which every later command then finds."""
    artifacts = Artifacts(tmp_path)

    def make(directory: Path) -> None:
        shutil.rmtree(directory)
        if writes:
            (directory / "late").write_text("1")

    with pytest.raises(MmmonoError, match=r"it-\w+\.partial was removed .*: run the same command again$"):
        artifacts.build("things", "it", RECIPE, make, resumable)
    assert not list(artifacts.find("things"))
    assert artifacts.build("things", "it", RECIPE, lambda folder: None, resumable).built


def test_a_process_that_was_taken_for_dead_takes_what_another_has_made(tmp_path: Path) -> None:
    """It was stopped for minutes, and finds no folder when it goes on: the other one has put it in place."""
    artifacts = Artifacts(tmp_path)
    final = artifacts.path("things", "it", RECIPE)

    def make(directory: Path) -> None:
        (directory / "data").write_text("other's")
        (directory / "recipe.json").write_text("{}")
        directory.rename(final)
        (directory / "more").write_text("own")

    made = artifacts.build("things", "it", RECIPE, make)
    assert not made.built
    assert (made.path / "data").read_text() == "other's"


@pytest.mark.parametrize("flock", [True, False])
def test_a_root_that_is_removed_while_a_lock_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flock: bool
) -> None:
    if not flock:
        monkeypatch.setattr(locks, "flock_holds", lambda folder: False)
    root = tmp_path / "root"
    final = Artifacts(root).path("things", "it", RECIPE)
    final.parent.mkdir(parents=True)
    with ThreadPoolExecutor(1) as pool, locks.locked(Path(f"{final}.lock")):
        waiting = pool.submit(Artifacts(root).build, "things", "it", RECIPE, lambda folder: None)
        time.sleep(0.3)
        shutil.rmtree(root)
        ended = waiting.exception(60)
    if ended is None:  # some versions of filelock make the folder anew, and the artifact is built there
        assert flock
        assert (waiting.result().path / "recipe.json").exists()
    else:
        assert isinstance(ended, MmmonoError)
        assert re.search(r"things was removed .*: run the same command again$", str(ended))


def test_what_made_an_artifact_is_kept_beside_it(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    made = artifacts.build("things", "it", RECIPE, lambda folder: None)
    assert made.versions["python"] == platform.python_version()
    assert made.versions["torch"] == version("torch")
    (made.path / "versions.json").unlink()
    assert made.versions == {}  # made before versions were kept


def test_finds_what_is_finished_and_adds_nothing(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    for k in (1, 2):
        artifacts.build("things", "it", {"k": k}, lambda folder: None)
    (tmp_path / "things" / "it-0.partial").mkdir()
    (tmp_path / "things" / "it-0.partial" / "recipe.json").write_text("{}")
    found = list(artifacts.find("things", "it-*"))
    assert sorted(artifact.recipe["k"] for artifact in found) == [1, 2]
    finished = FinishedArtifacts(tmp_path)
    assert finished.build("things", "it", {"k": 1}, lambda folder: None).path == artifacts.path(
        "things", "it", {"k": 1}
    )
    with pytest.raises(MissingArtifactError, match=r"it-\w+ is not there"):
        finished.build("things", "it", {"k": 3}, lambda folder: None)
    assert not artifacts.path("things", "it", {"k": 3}).exists()


def test_a_raised_version_makes_anew_and_leaves_the_old_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fixed bug must not leave its numbers found, neither themselves nor what was made from them."""
    artifacts = Artifacts(tmp_path)

    def make(directory: Path) -> None:
        (directory / "number").write_text(str(VERSIONS["dictionaries/sae"]))

    def both() -> list[Artifact]:
        source = artifacts.build("dictionaries", "sae-model-data", RECIPE, make)
        return [source, artifacts.build("results", "explorer-model-data", {"of": source.digest}, make)]

    before = both()
    version = VERSIONS["dictionaries/sae"]
    monkeypatch.setitem(VERSIONS, "dictionaries/sae", version + 1)  # type: ignore[misc]
    after = both()
    assert all(new.built and new.path != old.path for new, old in zip(after, before, strict=True))
    assert [(artifact.path / "number").read_text() for artifact in (before[0], after[0])] == [
        str(version),
        str(version + 1),
    ]
    assert [artifact.path for artifact in artifacts.find("dictionaries", "sae-*")] == [after[0].path]
    assert artifacts.made_from(after[1].recipe) == list(artifacts.find("dictionaries", "sae-*"))


def test_what_was_made_before_there_were_versions_is_not_found(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    old = tmp_path / "results" / f"mds-model-data-{digest(RECIPE)}"
    old.mkdir(parents=True)
    (old / "recipe.json").write_text(json.dumps(RECIPE))
    assert list(artifacts.find("results")) == []
    assert artifacts.build("results", "mds-model-data", RECIPE, lambda folder: None).built


def test_the_time_of_all_attempts_is_kept(tmp_path: Path) -> None:
    def waits(directory: Path) -> None:
        time.sleep(0.1)

    def dies(directory: Path) -> None:
        waits(directory)
        raise KeyboardInterrupt

    artifacts = Artifacts(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        artifacts.build("things", "it", RECIPE, dies, resumable=True)
    timing = read_timing(artifacts.build("things", "it", RECIPE, waits, resumable=True).path)
    assert timing is not None
    assert 0.2 <= timing.seconds < 10
    assert timing.machine == machine()
    assert read_timing(tmp_path) is None


def test_what_another_machine_finished_meanwhile_stays(tmp_path: Path) -> None:
    """Where a lock holds on each machine alone, two processes may build one artifact: readers keep the first result."""
    artifacts = Artifacts(tmp_path)
    final = artifacts.path("things", "it", RECIPE)

    def make(directory: Path) -> None:
        (directory / "data").write_text("second")
        final.mkdir()
        (final / "data").write_text("first")
        (final / "recipe.json").write_text("{}")

    made = artifacts.build("things", "it", RECIPE, make)
    assert not made.built
    assert (final / "data").read_text() == "first"
    assert sorted(path.name for path in final.parent.iterdir() if path.is_dir()) == [final.name]


def test_a_failed_build_leaves_nothing_that_no_later_one_starts_from(tmp_path: Path) -> None:
    def fail(directory: Path) -> None:
        (directory / "half").touch()
        raise ValueError("too few pairs")

    artifacts = Artifacts(tmp_path)
    for resumable, left in ((False, []), (True, ["half", "timing.json"])):
        with pytest.raises(ValueError, match="too few pairs"):
            artifacts.build("results", "it", {"resumable": resumable}, fail, resumable)
        assert sorted(file.name for file in tmp_path.rglob("*.partial/*")) == left
        assert len(list(tmp_path.rglob("*.partial"))) == bool(left)
