"""Lay out a W&B project after the paper: a section of panels for each of its sections."""

from omegaconf import DictConfig

from mmmono.pipeline.entrypoint import entrypoint


@entrypoint("dashboard")
def main(cfg: DictConfig) -> None:
    """Save the dashboard to the project."""
    # Imported here, so that --help and a mistyped setting answer at once.
    from mmmono.pipeline.analyses.dashboard import save_dashboard

    save_dashboard(cfg)


if __name__ == "__main__":
    main()
