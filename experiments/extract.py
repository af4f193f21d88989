"""Encode a dataset's image-text pairs into a feature store."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("extract")
def main(cfg: Config) -> None:
    """Make the feature store unless it exists, and print its size."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.commands.extract import extract
    from mmmono.pipeline.workspace import Workspace

    extract(Workspace(cfg, makes="features"))


if __name__ == "__main__":
    main()
