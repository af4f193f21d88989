"""Train the dictionaries of the selected feature sets."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("train")
def main(cfg: Config) -> float | tuple[float, ...] | None:
    """Train each dictionary unless it exists, and print its validation metrics."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.train.analysis import train_dictionaries
    from mmmono.pipeline.workspace import Workspace

    return train_dictionaries(Workspace(cfg, makes="dictionaries"))


if __name__ == "__main__":
    main()
