"""Pieces of work that take turns: in which order, and what one of them does to the others."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmmono.core.timing import others_built, read_timing, timed
from mmmono.core.turns import END, Cancelled, Turns


def steps(turns: Turns[str], name: str, seen: list[str], first: int = 0, last: int = 3) -> Callable[[], str]:
    """Work that waits before each of its steps and then notes it."""

    def work() -> str:
        for step in range(first, last):
            turns.wait((step,))
            seen.append(f"{name}{step}")
        return name

    return work


def test_whoever_is_furthest_behind_goes_on() -> None:
    seen: list[str] = []
    with Turns[str]() as turns:
        turns.add(steps(turns, "a", seen, first=2, last=5))
        turns.add(steps(turns, "b", seen))
        turns.add(steps(turns, "c", seen, first=1, last=2))
        turns.wait((1.5,))
        seen.append("main")
        assert turns.results() == ["a", "b", "c"]
    assert seen == ["b0", "b1", "c1", "main", "a2", "b2", "a3", "a4"]


def test_one_works_at_a_time_and_none_before_the_first_turn() -> None:
    working, most = 0, 0
    began = threading.Event()

    def work() -> None:
        nonlocal working, most
        began.set()
        for step in range(20):
            turns.wait((step,))
            working += 1
            most = max(most, working)
            sum(range(20_000))
            working -= 1

    with Turns[None]() as turns:
        for _ in range(3):
            turns.add(work)
        assert not began.wait(0.05)
        turns.results()
    assert most == 1


@pytest.mark.parametrize("bearable", [True, False])
def test_an_error_ends_all_unless_it_can_be_borne(bearable: bool) -> None:
    seen: list[str] = []

    def fails() -> str:
        turns.wait((1,))
        raise ValueError("broken")

    def all_three() -> None:
        with turns:
            turns.add(steps(turns, "a", seen))
            turns.add(fails)
            turns.add(steps(turns, "b", seen))
            turns.results()

    turns = Turns[str]((ValueError,) if bearable else (KeyError,))
    with pytest.raises(ValueError, match="broken"):
        all_three()
    assert seen == (["a0", "b0", "a1", "b1", "a2", "b2"] if bearable else ["a0", "b0", "a1"])


def test_an_interrupt_ends_all_where_they_wait() -> None:
    ended: list[object] = []

    def work() -> str:
        try:
            return steps(turns, "a", [])()
        except BaseException as error:
            ended.append(type(error))
            raise

    def interrupted() -> None:
        with turns:
            turns.add(work)
            turns.add(work)
            turns.wait((1,))
            raise KeyboardInterrupt

    turns = Turns[str]()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert ended == [Cancelled, Cancelled]


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


@pytest.mark.parametrize("mode", [nullcontext, torch.inference_mode, torch.no_grad])
def test_random_numbers_do_not_depend_on_the_others(mode: Callable[[], AbstractContextManager[None]]) -> None:
    def work(seed: int) -> list[tuple[float, float, float]]:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        found = []
        with mode():
            for step in range(3):
                turns.wait((step,))
                found.append(drawn())
        return found

    turns = Turns[list[tuple[float, float, float]]]()
    expected = [work(0), work(1)]  # the waits of a thread that is alone return at once
    with turns:
        turns.add(lambda: work(0))
        turns.add(lambda: work(1))
        assert turns.results() == expected


def test_waiting_is_no_time_of_the_artifact_that_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0  # a clock of the test's own: on a busy machine anything may take long
    monkeypatch.setattr("mmmono.core.timing.time", SimpleNamespace(monotonic=lambda: now))

    def work(folder: Path) -> None:
        nonlocal now
        folder.mkdir()
        with timed(folder):
            turns.wait((1,))
            now += 0.2
            turns.wait((2,))

    around = tmp_path / "around"
    around.mkdir()
    turns = Turns[None]()
    with timed(around), others_built(), turns:
        for name in "ab":
            turns.add(lambda name=name: work(tmp_path / name))  # type: ignore[misc]
        turns.wait(END)
    own = [timing.own for name in ("a", "b", "around") if (timing := read_timing(tmp_path / name)) is not None]
    assert own == pytest.approx([0.2, 0.2, 0], abs=0.001)  # as they are rounded


def test_pieces_that_hang_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmmono.core.turns.PATIENCE", 1.0)
    end = threading.Event()

    def hang() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        end.wait(20)

    def all_of_them() -> None:
        with Turns[None]() as turns:
            for _ in range(5):  # the others wait for the turn of the first
                turns.add(hang)
            turns.wait((1,))

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        all_of_them()
    assert time.monotonic() - begin < 4  # one after the other they would take 5
    end.set()


def test_after_a_late_failure_others_have_time_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmmono.core.turns.PATIENCE", 1.0)
    saved = []

    def fail() -> None:
        turns.wait((1,))
        time.sleep(1.2)  # longer than the block waits for those that were cancelled
        raise ValueError

    def save() -> None:
        try:
            turns.wait((2,))
        finally:
            time.sleep(0.05)  # far less than it has, as the process may be held up
            saved.append(True)

    with Turns[None]() as turns:
        turns.add(fail)
        turns.add(save)
    assert saved


def test_an_interrupt_just_before_the_wait_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmmono.core.turns.PATIENCE", 0.5)
    end = threading.Event()

    class Late(threading.Condition):
        """Sleeps in C, as a lock does, where a signal that has come already ends no wait."""

        def wait(self, timeout: float | None = None) -> bool:
            if threading.current_thread() is threading.main_thread():
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                try:
                    return super().wait(timeout)
                finally:
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            return super().wait(timeout)

    def hang() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        end.wait(20)

    def run() -> None:
        with Turns[None]() as turns:
            turns._changed = Late()
            turns.add(hang)
            turns.wait((1,))

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run()
    assert time.monotonic() - begin < 5
    end.set()
