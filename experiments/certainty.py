"""Test which features are significantly dominated by a modality, and whether other pairs, seeds or scores agree."""

from omegaconf import DictConfig

from mmmono.pipeline.entrypoint import entrypoint


@entrypoint("certainty")
def main(cfg: DictConfig) -> None:
    """Analyze the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.pipeline.analyses.certainty import assess_certainty
    from mmmono.pipeline.workspace import Workspace

    assess_certainty(Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
