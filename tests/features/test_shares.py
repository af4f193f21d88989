import multiprocessing as mp
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from mmmono.core.artifacts import Artifact, Artifacts, SharedWork
from mmmono.core.claims import Claims
from mmmono.core.errors import ConfigError, DataError
from mmmono.features import FeatureStore, encoding, extract_features
from mmmono.features.extraction import begin_store, extract_share
from mmmono.features.extraction_settings import ExtractionSettings
from mmmono.features.losses import Allowance
from mmmono.features.shares import Share, read_share
from mmmono.features.writer import CLAIMS, FeatureStoreWriter
from tests.fakes import ColorEncoder, ColorPairs
from tests.features.test_extraction import contents

SIZES = (7, 5, 3, 0, 6, 1, 4)
SETTINGS = ExtractionSettings()


@pytest.mark.parametrize(
    ("text", "count", "parts"),
    [("1/1", 4, [0, 1, 2, 3]), ("1/3", 7, [0, 3, 6]), ("3/3", 7, [2, 5]), ("64/64", 7, [])],
)
def test_shares_by_name(text: str, count: int, parts: list[int]) -> None:
    assert read_share(text).parts(count) == parts


@pytest.mark.parametrize("of", [1, 2, 5, 9])
def test_shares_divide_the_parts(of: int) -> None:
    shares = [Share(number, of).parts(7) for number in range(1, of + 1)]
    assert sorted(part for share in shares for part in share) == list(range(7))


@pytest.mark.parametrize("text", ["0/4", "5/4", "3", "3/", "/4", "-1/4", "1/0", "a/b", "1/2/3", "SLURM", ""])
def test_names_of_no_share_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"extraction\.part_of=.* is no share: give one from 1/64 to 64/64"):
        read_share(text)


def slurm(task: int, first: int, last: int, step: int, count: int) -> dict[str, str]:
    values = {"ID": task, "MIN": first, "MAX": last, "STEP": step, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


def test_shares_of_a_slurm_array() -> None:
    assert read_share("slurm", slurm(0, 0, 63, 1, 64)) == Share(1, 64)
    assert read_share("slurm", slurm(63, 0, 63, 1, 64)) == Share(64, 64)
    assert read_share("slurm", slurm(300, 100, 400, 100, 4)) == Share(3, 4)
    assert read_share("slurm", slurm(17, 17, 17, 1, 1)) == Share(1, 1)  # one task that is run again does what is left
    with pytest.raises(ConfigError, match=r"an array with gaps \(3 from 1 to 40\)"):
        read_share("slurm", slurm(17, 1, 40, 1, 3))
    with pytest.raises(ConfigError, match="SLURM_ARRAY_TASK_ID is not set: start it by sbatch --array"):
        read_share("slurm", {})


def whole(folder: Path, source: ColorPairs) -> dict[str, bytes]:
    """What one process writes."""
    extract_features(source, ColorEncoder(), folder)
    return contents(folder)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
@pytest.mark.parametrize("workers", [0, 2])
def test_shares_in_any_order_make_the_store_of_one_process(tmp_path: Path, order: list[int], workers: int) -> None:
    settings = ExtractionSettings(workers=workers, batch_size=4)
    broken = ("0/1", "4/5")
    begin_store(ColorPairs(SIZES, broken), tmp_path / "shared", settings)
    done = []
    for number in order:
        source = ColorPairs(SIZES, broken)
        done.append(extract_share(source, ColorEncoder(), tmp_path / "shared", Share(number, 3), settings=settings))
        if workers == 0:
            assert source.reads == Share(number, 3).parts(len(SIZES))
    assert done == [False, False, True]
    source = ColorPairs(SIZES, broken)
    extract_features(source, ColorEncoder(), tmp_path / "shared", settings=settings)
    assert source.reads == []
    assert contents(tmp_path / "shared") == whole(tmp_path / "whole", ColorPairs(SIZES, broken))
    assert not (tmp_path / "shared" / "work").exists()


class SlowPairs(ColorPairs):
    def read(self, part: int):  # type: ignore[no-untyped-def]
        for item in super().read(part):
            time.sleep(0.02)
            yield item


def _share(folder: str, number: int, of: int, workers: int = 0) -> None:
    settings = ExtractionSettings(workers=workers, batch_size=2)
    extract_share(SlowPairs((20,) * 5), ColorEncoder(), Path(folder), Share(number, of), settings=settings)


@pytest.mark.parametrize("workers", [0, 2])
def test_two_processes_with_the_same_share_never_write_a_part_twice(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "LOOK", 0.05)
    begin_store(SlowPairs((20,) * 5), tmp_path / "shared", SETTINGS)
    fork = mp.get_context("fork")
    processes = [fork.Process(target=_share, args=(str(tmp_path / "shared"), 1, 1, workers)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    claims = [file.name for file in (tmp_path / "shared" / CLAIMS).glob("*.*")]
    assert sorted(claims) == sorted(f"{part}.{n}" for part in range(5) for n in (0, 1))  # taken once, confirmed once
    assert len({(tmp_path / "shared" / CLAIMS / f"{part}.1").read_text() for part in range(5)}) == 2  # both worked
    extract_features(ColorPairs((20,) * 5), ColorEncoder(), tmp_path / "shared")
    assert contents(tmp_path / "shared") == whole(tmp_path / "whole", ColorPairs((20,) * 5))


def test_a_part_of_a_process_killed_in_its_midst_is_encoded_by_one_that_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(encoding, "LOOK", 0.05)
    store = tmp_path / "shared"
    begin_store(SlowPairs((20,) * 5), store, SETTINGS)
    victim = mp.get_context("fork").Process(target=_share, args=(str(store), 1, 3))
    victim.start()
    assert victim.pid is not None
    while not (store / CLAIMS / "0.0").exists():
        time.sleep(0.01)
    os.kill(victim.pid, signal.SIGSTOP)
    source = ColorPairs((20,) * 5)
    waiting = threading.Thread(
        target=extract_share, args=(source, ColorEncoder(), store, Share(1, 1)), kwargs={"settings": SETTINGS}
    )
    waiting.start()
    until = time.monotonic() + 60
    while not all((store / "reports" / f"{part}.json").exists() for part in range(1, 5)):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert waiting.is_alive()
    assert source.reads == [1, 2, 3, 4]
    time.sleep(0.3)  # several looks
    os.kill(victim.pid, signal.SIGKILL)
    waiting.join(60)
    victim.join()
    assert source.reads == [1, 2, 3, 4, 0]
    said = " ".join("".join(capfd.readouterr()).split())
    assert said.count("other processes work on 1 of 5 shards: waiting for them") == 1
    extract_features(ColorPairs((20,) * 5), ColorEncoder(), store)
    assert contents(store) == whole(tmp_path / "whole", ColorPairs((20,) * 5))


def test_a_process_that_lost_its_part_leaves_what_another_wrote(tmp_path: Path) -> None:
    """The other takes the part over while this one encodes it, as after long silence."""
    begin_store(ColorPairs((4, 4)), tmp_path, SETTINGS)
    claims = tmp_path / CLAIMS

    class Loses(ColorEncoder):
        def encode_image(self, images):  # type: ignore[no-untyped-def]
            (claims / "0.1").write_text("other")
            return super().encode_image(images)

    with Claims(claims) as other:
        (claims / "other.alive").write_text((claims / f"{other.token}.alive").read_text())
        thread = threading.Thread(
            target=extract_share, args=(ColorPairs((4,)), Loses(), tmp_path, Share(1, 1)), kwargs={"settings": SETTINGS}
        )
        thread.start()
        until = time.monotonic() + 30
        while not (claims / "0.1").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(0.3)
        assert not list((tmp_path / "img_emb").iterdir())
        assert not list((tmp_path / "work" / "staging").iterdir())
        FeatureStoreWriter(tmp_path, 1, begin=False).write(0, *[ColorEncoder().encode_text(_tokens())] * 2, _rows())
        thread.join(30)
    assert not thread.is_alive()
    assert FeatureStore(tmp_path).metadata()["key"].tolist() == ["theirs"]


def _tokens():  # type: ignore[no-untyped-def]
    import torch

    return torch.zeros(1, 2)


def _rows() -> list[dict[str, str]]:
    return [{"key": "theirs", "caption": ""}]


def test_broken_parts_are_named_by_their_share_and_again_by_whoever_finishes(tmp_path: Path) -> None:
    cut = {1: 3, 2: 0}
    begin_store(ColorPairs(SIZES, cut=cut), tmp_path, SETTINGS)
    for number, named in ((2, "part-1"), (3, "part-2")):
        with pytest.raises(DataError, match=f"1 of 7 shards .*{named} is cut off.*reads only these"):
            extract_share(ColorPairs(SIZES, cut=cut), ColorEncoder(), tmp_path, Share(number, 3), settings=SETTINGS)
    assert extract_share(ColorPairs(SIZES, cut=cut), ColorEncoder(), tmp_path, Share(1, 3), settings=SETTINGS)
    with pytest.raises(DataError, match=r"2 of 7 shards .*part-1, part-2 is cut off"):
        extract_features(ColorPairs(SIZES, cut=cut), ColorEncoder(), tmp_path)
    source = ColorPairs(SIZES, cut={2: 0})
    settings = ExtractionSettings(allowance=Allowance(max_broken_shards=1))
    assert extract_share(source, ColorEncoder(), tmp_path, Share(2, 3), settings=settings)
    assert source.reads == [1]
    manifest = extract_features(ColorPairs(SIZES, cut={2: 0}), ColorEncoder(), tmp_path, settings=settings)
    assert manifest.broken == {"part-2": "is cut off"}
    assert manifest.count == sum(SIZES) - SIZES[2]


def test_a_limit_cannot_be_shared(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.limit=3 cannot be shared.*set dataset\.limit=null"):
        begin_store(ColorPairs(limit=3), tmp_path, SETTINGS)
    assert not list(tmp_path.iterdir())


def built_together(artifacts: Artifacts, number: int, of: int, log: list[str]) -> Artifact | None:
    """A share of an artifact as an entrypoint builds it."""

    def finish(folder: Path) -> None:
        log.append(f"finish {number}")
        extract_features(ColorPairs(SIZES), ColorEncoder(), folder)

    job = SharedWork(
        lambda folder: begin_store(ColorPairs(SIZES), folder, SETTINGS),
        lambda folder: extract_share(ColorPairs(SIZES), ColorEncoder(), folder, Share(number, of), settings=SETTINGS),
        finish,
    )
    return artifacts.build_together("features", "colors", {"seed": 1}, job)


def test_the_last_share_publishes_the_artifact_and_later_ones_find_it(tmp_path: Path) -> None:
    log: list[str] = []
    heard: list[Artifact] = []
    artifacts = Artifacts(tmp_path, listener=heard.append)
    assert built_together(artifacts, 1, 3, log) is None
    assert built_together(artifacts, 3, 3, log) is None
    assert log == heard == []
    made = built_together(artifacts, 2, 3, log)
    assert made is not None
    assert made.built
    again = built_together(artifacts, 2, 3, log)
    assert again is not None
    assert (again.path, again.built, log) == (made.path, False, ["finish 2"])
    assert [artifact.path for artifact in heard] == [made.path, made.path]
    assert len(FeatureStore(made.path)) == sum(SIZES)
    rebuilding = Artifacts(tmp_path, rebuild=["features"])
    with pytest.raises(ConfigError, match=r"several processes cannot rebuild one artifact with \+force=true"):
        built_together(rebuilding, 1, 3, log)


def test_a_share_whose_store_is_finished_by_another_process_meanwhile_begins_no_new_one(tmp_path: Path) -> None:
    """Between its beginning and its first part, as while it loads its model."""
    artifacts = Artifacts(tmp_path)

    def work(folder: Path) -> bool:
        other = [built_together(Artifacts(tmp_path), number, 2, []) for number in (1, 2)][-1]
        assert other is not None
        return extract_share(ColorPairs(SIZES), ColorEncoder(), folder, Share(1, 2), settings=SETTINGS)

    job = SharedWork(lambda folder: begin_store(ColorPairs(SIZES), folder, SETTINGS), work, lambda _: pytest.fail("no"))
    made = artifacts.build_together("features", "colors", {"seed": 1}, job)
    assert made is not None
    assert not made.built
    assert [path.name for path in (tmp_path / "features").iterdir() if path.is_dir()] == [made.path.name]


def test_a_report_that_goes_with_its_store_between_two_looks_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has put the store in place, while the one that leads a cluster counts what is done."""
    writer = FeatureStoreWriter(tmp_path, 2)
    monkeypatch.setattr(Path, "exists", lambda self, **_: True)
    assert writer.report(0) is None
