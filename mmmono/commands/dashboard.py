"""`experiments/dashboard.py`: arrange a W&B project by the paper's sections."""

from __future__ import annotations

import os

from omegaconf import DictConfig

from mmmono.core.errors import ConfigError
from mmmono.core.extras import need
from mmmono.core.text import first_line
from mmmono.reporting.tables import console, show_table


def save_dashboard(cfg: DictConfig) -> None:
    """Save the W&B workspace to the project that `logger=wandb` logs to; if W&B is offline, only list its panels.

    Raises:
        ConfigError: a package is missing, the logger is not W&B, or the server refuses the workspace.
    """
    need("a dashboard", "wandb", "wandb_workspaces")
    if "project" not in cfg.logger:
        raise ConfigError("a dashboard belongs to a W&B project: leave logger=wandb as it is")
    import wandb

    from mmmono.commands.wandb_workspace import dashboard, panel_groups

    names = ("figures", "tables", "curves", "bars")
    rows: list[dict[str, object]] = [
        {"section": group.title, **{name: len(getattr(group, name)) for name in names}} for group in panel_groups()
    ]
    show_table(rows, f"Panels of the project {cfg.logger.project}")
    if os.environ.get("WANDB_MODE", "online") != "online":
        dashboard(cfg.logger.entity or "offline", cfg.logger.project)
        console.print("not saved: W&B is offline; run this again without WANDB_MODE once the runs are uploaded")
        return
    try:
        workspace = dashboard(cfg.logger.entity or wandb.Api().default_entity, cfg.logger.project)
        workspace.save()
    except Exception as error:  # the client raises whatever its transport raises
        raise ConfigError(
            f"W&B does not take the dashboard ({first_line(error)}): logger.project="
            f"{cfg.logger.project} must have a run, and logger.entity={cfg.logger.entity} must be yours"
        ) from error
    console.print(f"dashboard: {workspace.url}")
