"""Score every feature's modality dominance and sort features into ImgD, TextD and CrossD (Section 2.1, Figure 4)."""

from omegaconf import DictConfig

from mmmono.pipeline.entrypoint import entrypoint


@entrypoint("mds")
def main(cfg: DictConfig) -> None:
    """Score the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.pipeline.analyses.dominance import score_modality_dominance
    from mmmono.pipeline.workspace import Workspace

    score_modality_dominance(Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
