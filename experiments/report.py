"""Collect all results of the selected features on one page, next to the paper's."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("report")
def main(cfg: Config) -> None:
    """Make a page of the existing results, and list the missing ones."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.commands.report.command import report
    from mmmono.pipeline.workspace import Workspace

    report(Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
