"""Find what activates each feature most, and draw contact sheets (Section 2.3, Figures 1 to 3)."""

from omegaconf import DictConfig

from mmmono.pipeline.analyses.top_samples import find_top_samples
from mmmono.pipeline.entrypoint import entrypoint
from mmmono.pipeline.workspace import Workspace


@entrypoint("top_samples")
def main(cfg: DictConfig) -> None:
    """Analyze the chosen feature sets side by side."""
    find_top_samples(Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
