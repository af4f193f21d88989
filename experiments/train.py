"""Train the dictionaries of the chosen feature sets."""

from omegaconf import DictConfig

from mmmono.pipeline.entrypoint import entrypoint


@entrypoint("train")
def main(cfg: DictConfig) -> float | tuple[float, ...] | None:
    """Train each, unless it is there, and show how well it reconstructs and how sparse it is."""
    # Imported here, so that --help and a mistyped setting answer before PyTorch is loaded.
    from mmmono.pipeline.analyses.training import train_dictionaries
    from mmmono.pipeline.workspace import Workspace

    return train_dictionaries(Workspace(cfg, makes="dictionaries"))


if __name__ == "__main__":
    main()
