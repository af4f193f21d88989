"""A made-up explorer of two feature sets, and the browser that opens it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmmono.commands.explorer.page import ExploredFeatures
from tests.reporting.browser import chromium
from tests.reporting.made_up import FEATURES, compared, explored, write


@pytest.fixture(scope="module")
def sets() -> list[ExploredFeatures]:
    return compared(explored("raw", 40, seed=1, mono=False), explored("sae", FEATURES), (1, 0))


@pytest.fixture(scope="module")
def page(sets: list[ExploredFeatures], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("explorer"), sets)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found
