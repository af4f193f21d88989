"""What concerns tests of all folders: which of them are property tests or slow, their order, their threads, their pauses.

`make fuzz` finds property tests by the marker `fuzz`; `make test-quick` leaves out what is marked `slow`. A test that uses
an expensive fixture is slow without saying so, because it waits for the fixture where it runs alone.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from typing import Any

import pytest
from hypothesis import settings

gc.disable()  # until all is collected: what is imported stays, and looking through it takes a third of the time

settings.register_profile("mmmono", deadline=None)  # a busy machine is no error
settings.load_profile("mmmono")

# One thread for each process, also of the commands that tests start. Results of one and of several processes are compared to
# the bit, and sums are rounded differently by other numbers of threads. And more threads than cores wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):  # of `make test`: tests that run make would be a part of it
    os.environ.pop(name, None)

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # of what a shell starts with &; tests of interrupts would wait
    signal.signal(signal.SIGINT, signal.default_int_handler)

EXPENSIVE = frozenset(
    {
        "artifacts", "fitted", "models",  # fit DrawingCLIP
        "decoder_folder", "classifier", "made",  # train or make a model
        "outcomes",  # runs every command of README and docs
    }
)  # fmt: skip


# Files with single tests that take minutes, the longest first. They begin before all others: at the end of a run one process
# would be busy with them, and the other ones idle. The first fits the default model, while no other process needs it.
LONGEST = (
    "pipeline/test_default_model.py", "rehearsal/test_rehearsal.py", "test_commands.py", "test_extending.py",
    "pipeline/test_validate.py", "test_notebooks.py", "test_wheel.py", "pipeline/test_chaos.py", "pipeline/test_sweeps.py",
    "pipeline/test_processes.py",
)  # fmt: skip


def _place(item: pytest.Item) -> int:
    """Tests that need the fitted default model come last: before, they would wait for another process that fits it."""
    file = item.nodeid.partition("::")[0].removeprefix("tests/")
    if file in LONGEST:
        return LONGEST.index(file)
    return len(LONGEST) + ("models" in getattr(item, "fixturenames", ()))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_place)
    for item in items:
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("fuzz")
        if EXPENSIVE & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over modules and tests, which stay, in each of its looks from now on."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Let Python clear modules in its usual order at the end: libraries print what they find left over."""
    gc.unfreeze()
    gc.disable()


class _Hasty:
    """The module `time`, with sleep that lasts a hundredth."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / 100)


@pytest.fixture(autouse=True)
def short_pauses() -> None:
    """A hub that does not answer is asked again at once: huggingface_hub waits for 1, 2, 4, 8 and 8 seconds in between."""
    if (client := sys.modules.get("huggingface_hub.utils._http")) is not None:
        client.time = _Hasty()  # type: ignore[attr-defined]
