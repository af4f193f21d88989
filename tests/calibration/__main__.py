"""`make calibrate`: realised coverage and false positive rate of every interval and test that mmmono prints."""

from __future__ import annotations

import argparse
import sys

from joblib import Parallel, delayed
from rich.console import Console
from rich.table import Table

from tests.calibration.cases import CASES
from tests.calibration.measure import Measured, bounds, measure


def main() -> None:
    """Measure the cases and print the table; the exit status is 1 if any rate is out of bounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only cases with one of these words in their names; all by default")
    parser.add_argument("--simulations", type=int, default=8000, help="experiments of each case, fewer of slow ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=-1, help="processes; all cores by default")
    options = parser.parse_args()
    chosen = [
        (place, case) for place, case in enumerate(CASES)
        if not options.words or any(word.lower() in case.name.lower() for word in options.words)
    ]  # fmt: skip
    rows = Parallel(n_jobs=options.jobs)(
        delayed(measure)(place, options.simulations, options.seed) for place, _ in chosen
    )
    Console(width=180).print(_table(rows))
    sys.exit(any(row.outside for row in rows) or not rows)


def _table(rows: list[Measured]) -> Table:
    table = Table(title="nominal .95 must cover in .93 to .97, nominal .05 err in .04 to .06")
    for column in ("interval or test", "regime", "measured", "rate ± error", "simulations", ""):
        table.add_column(column)
    for row in rows:
        case = CASES[row.place]
        low, high = bounds(row.place)
        verdict = f"outside {low} to {high}" if row.outside else case.conservative
        table.add_row(
            case.name, case.regime, case.kind, f"{row.rate:.3f} ± {row.error:.3f}", str(row.simulations), verdict
        )
    return table


if __name__ == "__main__":
    main()
