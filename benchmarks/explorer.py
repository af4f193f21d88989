"""How long the feature explorer takes to open and to filter in a headless Chromium, with 16,384 made-up features.

    python benchmarks/explorer.py [features]

`opens` is from the address to the table on the screen, the least of five times; the limit is a second. All else was done
fifteen times, until the page is laid out and its canvases are drawn. What else the machine does adds to the median, so the
least is what the page takes; the limit of what filters is 20 ms.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.reporting.browser import chromium, opened
from tests.reporting.explorer_speed import FEATURES, filtering, opening, page_of_many

OPENS, FILTERS = 1000.0, 20.0  # limits in milliseconds


def main() -> None:
    features = int(sys.argv[1]) if len(sys.argv) > 1 else FEATURES
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        page = page_of_many(Path(folder), features)
        size = sum(file.stat().st_size for file in (Path(folder) / "data").rglob("table.js"))
        opens = 1000 * min(opening(browser, page) for _ in range(5))
        print(f"{features:,} features, table of {size / 1e6:.1f} MB")
        print(f"opens                   {opens:7.0f} ms (limit {OPENS:.0f})")
        with opened(browser, page, width=1440) as tab:
            tab.locator("#table tbody tr[data-feature]").first.wait_for()
            for act, found in filtering(tab).items():
                limit = f" (limit {FILTERS:.0f})" if "sort" not in act else ""
                print(f"{act:<22}  {found['least']:7.1f} ms, median {found['median']:.1f} ms{limit}")


if __name__ == "__main__":
    main()
