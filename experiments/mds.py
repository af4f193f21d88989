"""Score every feature's modality dominance and sort features into ImgD, TextD and CrossD (Section 2.1, Figure 4)."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("mds")
def main(cfg: Config) -> None:
    """Score the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.mds import MDS
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    run(MDS, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
