"""Score every feature's modality dominance and sort features into ImgD, TextD and CrossD (Section 2.1, Figure 4)."""

from omegaconf import DictConfig

from mmmono.pipeline.analyses.dominance import score_modality_dominance
from mmmono.pipeline.entrypoint import entrypoint
from mmmono.pipeline.workspace import Workspace


@entrypoint("mds")
def main(cfg: DictConfig) -> None:
    """Score the chosen feature sets side by side."""
    score_modality_dominance(Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
