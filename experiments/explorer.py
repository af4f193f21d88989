"""Make the feature explorer, an interactive page of score distributions, features and their top samples."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("explorer")
def main(cfg: Config) -> None:
    """Make a page of the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.commands.explorer.command import explore
    from mmmono.pipeline.workspace import Workspace

    explore(Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
