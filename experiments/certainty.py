"""Say which features are dominated beyond chance, and whether other pairs, seeds or scores would agree."""

from omegaconf import DictConfig

from mmmono.pipeline.entrypoint import entrypoint


@entrypoint("certainty")
def main(cfg: DictConfig) -> None:
    """Analyze the chosen feature sets side by side."""
    # Imported here, so that --help and a mistyped setting answer before PyTorch is loaded.
    from mmmono.pipeline.analyses.certainty import assess_certainty
    from mmmono.pipeline.workspace import Workspace

    assess_certainty(Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
