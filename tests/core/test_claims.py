import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mmmono.core.claims import Claims


def test_a_part_has_one_owner_while_the_owner_lives(tmp_path: Path) -> None:
    first, second = Claims(tmp_path), Claims(tmp_path)
    with first, second:
        assert first.is_free(3)
        assert first.take(3)
        assert first.take(3)
        assert not second.is_free(3)
        assert not second.take(3)
        assert second.take(4)
        assert first.confirm(3)
        assert not second.confirm(3)
        assert not second.take(3)
    assert not first.gone


def test_what_an_owner_leaves_is_free_at_once(tmp_path: Path) -> None:
    with Claims(tmp_path) as first:
        assert first.take(0)
    with Claims(tmp_path) as second:
        assert second.take(0)
        assert not first.confirm(0)


def test_a_claim_that_a_full_disk_leaves_empty_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Claims(tmp_path) as first, Claims(tmp_path) as second:
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(OSError, match="No space left"):
                first.take(0)
        assert second.take(0)


def test_a_copy_takes_parts_in_the_name_of_its_owner(tmp_path: Path) -> None:
    with Claims(tmp_path) as claims, Claims(tmp_path) as other:
        copy = pickle.loads(pickle.dumps(claims))
        assert copy.take(1)
        assert claims.confirm(1)
        assert not other.take(1)


TAKE = "import sys; from mmmono.core.claims import Claims; from pathlib import Path; import time\n"
TAKE += "with Claims(Path(sys.argv[1])) as c:\n    print(c.take(0), flush=True)\n    time.sleep(600)"


def test_the_part_of_a_killed_process_is_free_at_once_and_that_of_a_stopped_one_is_not(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", TAKE, str(tmp_path)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"True\n"
        with Claims(tmp_path) as claims:
            os.kill(owner.pid, signal.SIGSTOP)
            assert not claims.take(0)
            os.kill(owner.pid, signal.SIGKILL)
            until = time.monotonic() + 30
            while not claims.take(0):  # also before its parent has asked how it ended
                assert time.monotonic() < until
                time.sleep(0.01)


def elsewhere(claims: Claims) -> None:
    """Make the owner's sign of life one of another machine."""
    sign = claims.folder / f"{claims.token}.alive"
    sign.write_text(json.dumps({"machine": "elsewhere", "pid": 1}))


def silent(claims: Claims, part: int) -> None:
    """Look at a part for as long as its owner has to be silent."""
    assert not claims.take(part)
    time.sleep(claims.expiry + 0.01)


def test_an_owner_elsewhere_is_dead_after_long_silence_and_does_no_harm_when_it_wakes(tmp_path: Path) -> None:
    with Claims(tmp_path, beat=3600) as sleeper, Claims(tmp_path, expiry=0.3) as claims, Claims(tmp_path) as third:
        assert sleeper.take(0)
        assert sleeper.take(1)
        elsewhere(sleeper)
        silent(claims, 0)
        assert claims.take(0)
        assert not sleeper.confirm(0)
        assert not sleeper.take(0)
        assert claims.confirm(0)
        assert third.take(1)  # what one process has found out, others need not wait for
        assert not sleeper.take(1)


@pytest.mark.parametrize("ahead", [-300, 0, 300])
def test_clocks_of_machines_may_differ(tmp_path: Path, ahead: float) -> None:
    """On Lustre, GPFS or sshfs the machine that touches a file says when."""
    with Claims(tmp_path, beat=3600) as owner, Claims(tmp_path, expiry=0.4) as claims:
        assert owner.take(0)
        elsewhere(owner)
        for _ in range(30):
            then = time.time() + ahead
            os.utime(tmp_path / f"{owner.token}.alive", (then, then))
            assert not claims.take(0)
            time.sleep(0.02)
        silent(claims, 0)
        assert claims.take(0)


def test_a_copy_knows_how_long_an_owner_has_been_silent(tmp_path: Path) -> None:
    with Claims(tmp_path, beat=3600) as owner, Claims(tmp_path, expiry=0.3) as claims:
        assert owner.take(0)
        elsewhere(owner)
        assert not claims.take(0)
        copy = pickle.dumps(claims)
        time.sleep(0.31)
        code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).take(0))"
        assert subprocess.run([sys.executable, "-c", code], input=copy, capture_output=True).stdout == b"True\n"
        assert claims.confirm(0)


def test_signs_of_life_keep_a_part(tmp_path: Path) -> None:
    with Claims(tmp_path, beat=0.02) as owner, Claims(tmp_path, expiry=1) as claims:
        assert owner.take(0)
        elsewhere(owner)
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            assert not claims.take(0)
            time.sleep(0.02)


def test_who_was_taken_for_dead_gives_signs_again(tmp_path: Path) -> None:
    with Claims(tmp_path, beat=0.02) as owner, Claims(tmp_path) as claims:
        sign = tmp_path / f"{owner.token}.alive"
        sign.unlink()
        until = time.monotonic() + 60
        while not sign.exists():
            assert time.monotonic() < until, "gives no sign"
            time.sleep(0.01)
        assert owner.take(0)
        assert not claims.take(0)
    assert not list(tmp_path.glob("*.alive"))


def test_a_claim_without_its_token_counts_for_a_while(tmp_path: Path) -> None:
    (tmp_path / "0.0").write_text("")  # its owner was killed between two system calls
    with Claims(tmp_path, expiry=0.3) as claims:
        silent(claims, 0)
        assert claims.take(0)


def test_a_part_that_was_taken_a_thousand_times_is_taken_as_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the lock of a judge's verdicts is, where machines take turns by claims."""
    for number in range(1000):
        (tmp_path / f"0.{number}").write_text("gone")
    looks: list[object] = []
    for name in ("stat", "open"):
        method = getattr(Path, name)
        monkeypatch.setattr(Path, name, lambda *given, of=method, **more: (looks.append(given), of(*given, **more))[1])
    with Claims(tmp_path) as claims:
        assert claims.take(0)
    assert (tmp_path / "0.1000").read_text() == claims.token
    assert len(looks) < 40


@pytest.mark.parametrize("claims", range(10))
def test_the_last_claim_of_any_number_is_found(tmp_path: Path, claims: int) -> None:
    for number in range(claims):
        (tmp_path / f"0.{number}").write_text(f"owner {number}")
    assert Claims(tmp_path)._last(0) == (claims - 1, f"owner {claims - 1}" if claims else None)


def test_nothing_can_be_claimed_in_a_folder_that_was_removed(tmp_path: Path) -> None:
    folder = tmp_path / "claims"
    folder.mkdir()
    with Claims(folder) as claims:
        assert claims.take(0)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        assert claims.gone
        assert not claims.confirm(0)
        assert not claims.take(1)
        with Claims(folder) as late:
            assert not late.take(0)
    assert not folder.exists()


def _take_all(folder: str) -> list[int]:
    with Claims(Path(folder)) as claims:
        mine = [part for part in range(200) if claims.take(part)]
        (Path(folder) / f"done-{os.getpid()}").touch()
        while len(list(Path(folder).glob("done-*"))) < 3:  # leave together: what an owner leaves is free
            time.sleep(0.01)
        return [part for part in mine if claims.confirm(part)]


def test_processes_that_take_the_same_parts_at_once_share_them(tmp_path: Path) -> None:
    with ProcessPoolExecutor(3) as pool:
        taken = list(pool.map(_take_all, [str(tmp_path)] * 3))
    assert sorted(part for mine in taken for part in mine) == list(range(200))


def test_every_takeover_and_every_confirmation_has_a_number_of_its_own(tmp_path: Path) -> None:
    """Threads that race on each of many parts whose owner is silent: no two of them succeed with the same file."""
    with Claims(tmp_path, beat=3600) as sleeper, Claims(tmp_path, expiry=0.3) as claims:
        parts = range(300)
        assert all(sleeper.take(part) for part in parts)
        elsewhere(sleeper)
        silent(claims, 0)
        won: dict[str, list[Any]] = {}
        racers = [
            threading.Thread(target=lambda: won.update(owner=[sleeper.confirm(part) for part in parts])),
            threading.Thread(
                target=lambda: won.update(other=[(t := claims.take(p), t and claims.confirm(p)) for p in parts])
            ),
        ]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
    # Where the owner confirmed first, its new claim is as silent as the old one: `other` may take that over too.
    for part, (owner, (took, confirmed)) in enumerate(zip(won["owner"], won["other"], strict=True)):
        assert owner or confirmed, part
        assert len(list(tmp_path.glob(f"{part}.*"))) == 1 + owner + took + confirmed
        last = max(int(file.suffix[1:]) for file in tmp_path.glob(f"{part}.*"))
        assert ((tmp_path / f"{part}.{last}").read_text() == claims.token) == confirmed


@pytest.mark.parametrize("part", [0, 12])
def test_a_part_is_taken_over_more_than_once(tmp_path: Path, part: int) -> None:
    for _ in range(3):
        with Claims(tmp_path) as claims:
            assert claims.take(part)
            assert claims.confirm(part)
