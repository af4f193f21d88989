"""`experiments/plan.py`: what make targets would compute, download and reuse, how long it takes, and what will fail.

Each step composes its entrypoint's configuration and prepares the analysis with artifacts that may be found but not
built. So it asks for exactly the artifacts, and runs exactly the checks, of the real run. No model is loaded.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mmmono.analyses import ANALYSES
from mmmono.commands.plan.downloads import Hub
from mmmono.commands.plan.keys import needed_keys
from mmmono.commands.plan.rates import hours, readable
from mmmono.commands.plan.step import Item, State, Step
from mmmono.commands.steps import Reproduction, all_targets, analyses_of, group_of, in_order, overrides_for
from mmmono.core.errors import ConfigError, MmmonoError
from mmmono.pipeline.analysis import Analysis
from mmmono.pipeline.running import CONF, error_line
from mmmono.pipeline.shared_settings import own_options, settings_it_has, settings_of_own_file
from mmmono.pipeline.typed import read_settings
from mmmono.reporting.tables import console, show_table
from mmmono.vlm.hub import hub_or_cache


@dataclass(frozen=True)
class PlanSettings:
    """Settings of the section `plan`.

    Attributes:
        exact: whether every step is composed with the paper's own settings.
        coco: folder of COCO, for what the paper did on it; None if there is none.
        targets: make targets to plan, such as `paper` or `names`.
        only: names of the analyses to plan; None for all that the targets run.
        more: further arguments of steps: options of groups that bring a whole configuration, such as `analysis=gender`.
    """

    exact: bool
    coco: str | None
    targets: Sequence[str]
    only: Sequence[str] | None
    more: Sequence[str]


def print_plan(cfg: DictConfig) -> None:
    """Print the plan of all steps as a table, with totals of what is still to be made."""
    rows: dict[tuple[str, str], Item] = {}
    keys: dict[str, None] = {}
    with hub_or_cache():  # for all steps: once the hub does not answer, it is not asked again
        hub = Hub()
        for item in _items(cfg, hub, keys):
            rows.setdefault(item.identity, item)
    items = list(rows.values())
    title = f"Plan: {cfg.model.name} on {HydraConfig.get().runtime.choices['dataset']}"
    show_table([item.to_row() for item in items], title)
    _tell_failures(items)
    for line in keys:
        console.print(f"needs {line}")
    if not hub.reachable:
        console.print("the hub does not answer: sizes of downloads are recorded ones, and nothing can be fetched now")
    _sums(items, Path(cfg.artifacts))


def _items(cfg: DictConfig, hub: Hub, keys: dict[str, None]) -> Iterator[Item]:
    settings = read_settings(cfg, "plan", PlanSettings)
    given = [_given(o) for o in HydraConfig.get().overrides.task if group_of(o) not in ("plan", "hydra")]
    own = [*own_options(), *settings_of_own_file("plan", CONF), *given, *settings.more]
    reproduction = Reproduction(own, settings.exact, settings.coco)
    for analysis in _chosen(settings.targets, settings.only):
        if reproduction.lacks_coco(analysis):
            why = "the paper's own is on COCO, give its folder (make COCO=..., or plan.coco=...)"
            yield Item(analysis.section, f"results of {analysis.name}", "the paper's", State.FAILS, why=why)
        else:
            alone = analysis.targets[0] in settings.targets
            yield from planned(analysis, reproduction.arguments(analysis, alone), hub, keys)


def _given(override: str) -> str:
    """An override as its steps take it: with a plus only for an option of a group of the user's own."""
    key = group_of(override)
    is_own = key in HydraConfig.get().runtime.choices and not (CONF / key).is_dir()
    return override if is_own else override.removeprefix("+")


def _chosen(targets: Sequence[str], only: Sequence[str] | None) -> list[Analysis]:
    """The analyses that make targets run, or those of them that are named.

    Raises:
        ConfigError: there is no such target, or it does not run such an analysis.
    """
    if unknown := [target for target in targets if not analyses_of(target)]:
        raise ConfigError(f"plan.targets names {', '.join(unknown)}: choose of {', '.join(['paper', *all_targets()])}")
    steps = [analysis for analysis in in_order(ANALYSES) if any(analysis in analyses_of(target) for target in targets)]
    if only is None:
        return steps
    known = [analysis.name for analysis in steps]
    if unknown := [name for name in only if name not in known]:
        raise ConfigError(
            f"plan.only names {', '.join(unknown)}: choose of {', '.join(known)}, or name their make targets in plan.targets"
        )
    return [analysis for analysis in steps if analysis.name in only]


def planned(analysis: Analysis, overrides: list[str], hub: Hub, keys: dict[str, None]) -> Iterator[Item]:
    """List what an analysis needs and makes; overrides of settings that its entrypoint does not have are ignored.

    Args:
        analysis: the analysis.
        overrides: overrides as on the command line.
        hub: the model hub, to look up downloads.
        keys: output; gets a line for each API key or token that the analysis needs.
    """
    cfg = compose(analysis.name, settings_it_has(analysis.name, overrides_for(analysis, overrides), CONF))
    keys.update(dict.fromkeys(str(key) for key in needed_keys(cfg)))
    try:
        yield from Step(analysis, cfg, hub).items()
    except (MmmonoError, HydraException, OmegaConfBaseException) as error:
        model = str(cfg.model.get("name", ""))
        yield Item(analysis.section, f"results of {analysis.name}", model, State.FAILS, why=error_line(error))


def _tell_failures(items: list[Item]) -> None:
    reasons: dict[str, list[str]] = {}
    for item in items:
        if item.state == State.FAILS:
            reasons.setdefault(item.why, []).append(f"{item.what} ({item.model})" if item.model else item.what)
    for why, names in reasons.items():
        rest = f" and {len(names) - 2} more" if len(names) > 2 else ""
        console.print(f"will fail: {'; '.join(names[:2])}{rest}: {why}", highlight=False)


def _sums(items: list[Item], root: Path) -> None:
    to_make = [item for item in items if item.state == State.TO_MAKE]
    fetched = [item for item in items if item.state == State.TO_FETCH]
    counts = Counter(item.state for item in items)
    writes = sum(item.writes or 0 for item in to_make)
    downloads = sum(item.download or 0 for item in items)
    kept = sum(item.download or 0 for item in items if item.kept)
    parts = [f"{len(to_make)} to make", f"{counts[State.FOUND]} found in {root}"]
    if fetched:
        parts.append(f"{len(fetched)} to download")
    if counts[State.FAILS]:
        parts.append(f"{counts[State.FAILS]} will fail")
    console.print(", ".join(parts))
    root = root.absolute()
    free = shutil.disk_usage(next(path for path in (root, *root.parents) if path.exists())).free
    peak = writes + kept
    console.print(
        f"about {readable(downloads)} to download, {readable(writes)} to write; peak disk {readable(peak)} more, "
        f"{readable(free)} are free"
    )
    known = [item.seconds for item in to_make if item.seconds is not None]
    unknown = len(to_make) - len(known)
    if to_make:
        rest = f", and {unknown} steps whose time is unknown until this machine has run one" if unknown else ""
        console.print(f"time: {hours(sum(known)) if known else 'unknown'}{rest if known else ''}")
    if peak > free:
        console.print("That does not fit: free some room, or point artifacts=/path/with/room elsewhere", style="red")
