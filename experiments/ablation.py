"""Remove classes of features and classify images and texts (Section 2.2, Table 1)."""

from omegaconf import DictConfig

from mmmono.pipeline.analyses.ablation import ablate
from mmmono.pipeline.entrypoint import entrypoint
from mmmono.pipeline.workspace import Workspace


@entrypoint("ablation")
def main(cfg: DictConfig) -> None:
    """Analyze the chosen feature sets side by side."""
    ablate(Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
