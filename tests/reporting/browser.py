"""A headless Chromium for pages on disk. What reaches the console, or fails to load, fails the test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser. Skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the dev extra brings playwright")
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser on PATH ({', '.join(NAMES)}): apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, page: Path, where: str = "", width: int = 1280, **options: Any) -> Iterator[Any]:
    """A page opened from disk; afterwards nothing may have gone wrong, and nothing have left the disk."""
    troubles: list[str] = []
    tab = browser.new_page(viewport={"width": width, "height": 800}, **options)
    tab.set_default_timeout(15_000)
    tab.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
    tab.on("pageerror", lambda error: troubles.append(str(error)))
    tab.on("requestfailed", lambda request: troubles.extend(_missing(request)))
    tab.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else troubles.append(f"asked for {r.url}"))
    tab.goto(f"{page.as_uri()}{where}")
    yield tab
    tab.close()
    assert troubles == [], troubles


def _missing(request: Any) -> list[str]:
    """What could not be loaded; an image that is no longer needed, since another feature was opened, is not missing."""
    return [] if request.failure == "net::ERR_ABORTED" else [f"{request.failure}: {request.url}"]
