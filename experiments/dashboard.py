"""Arrange a W&B project by the paper's sections, with one group of panels per section."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("dashboard")
def main(cfg: Config) -> None:
    """Save the dashboard to the project."""
    # Imported here, so that --help and errors in settings appear at once.
    from mmmono.commands.dashboard import save_dashboard

    save_dashboard(cfg)


if __name__ == "__main__":
    main()
