"""Ask whether a concept is carried by the picture or by the words (Section 4.1, Table 2, Figure 7, Table 6)."""

from omegaconf import DictConfig

from mmmono.pipeline.entrypoint import entrypoint


@entrypoint("gender")
def main(cfg: DictConfig) -> None:
    """Analyze the chosen feature sets side by side."""
    # Imported here, so that --help and a mistyped setting answer before PyTorch is loaded.
    from mmmono.pipeline.analyses.gender import study_concepts
    from mmmono.pipeline.workspace import Workspace

    study_concepts(Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
