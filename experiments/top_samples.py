"""Find the samples that activate each feature most, and draw contact sheets (Section 2.3, Figures 1 to 3)."""

from omegaconf import DictConfig

from mmmono.pipeline.entrypoint import entrypoint


@entrypoint("top_samples")
def main(cfg: DictConfig) -> None:
    """Analyze the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.pipeline.analyses.top_samples import find_top_samples
    from mmmono.pipeline.workspace import Workspace

    find_top_samples(Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
