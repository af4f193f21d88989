"""Find what activates each feature most, and draw contact sheets (Section 2.3, Figures 1 to 3)."""

from omegaconf import DictConfig

from mmmono.pipeline.entrypoint import entrypoint


@entrypoint("top_samples")
def main(cfg: DictConfig) -> None:
    """Analyze the chosen feature sets side by side."""
    # Imported here, so that --help and a mistyped setting answer before PyTorch is loaded.
    from mmmono.pipeline.analyses.top_samples import find_top_samples
    from mmmono.pipeline.workspace import Workspace

    find_top_samples(Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
