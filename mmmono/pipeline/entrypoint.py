"""Turn a function of a configuration into a command line.

Hydra and all else are imported when the command runs, so that an interrupt is one line however early it comes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from mmmono.core.output import ending_in_a_line

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mmmono.pipeline.running import Objective

    Config: TypeAlias = DictConfig
else:
    Config = "omegaconf.DictConfig"


def entrypoint(config_name: str) -> Callable[[Callable[[Config], Objective]], Callable[[], None]]:
    """Decorate `main(cfg)` so that calling it without arguments runs it from the command line.

    `main` returns a sweeper's objective. `MmmonoError` and configuration errors print one line to stderr and exit with
    status 1, an interrupt with status 130. Any other error is a bug and keeps its traceback. In a multirun, the other
    jobs continue.
    """
    return lambda main: partial(_command, main, config_name)


def _command(main: Callable[[Config], Objective], config_name: str) -> None:
    with ending_in_a_line():
        from mmmono.pipeline.running import run_command

        run_command(main, config_name)
