"""Measure how much of the embeddings' information and function a feature set preserves."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("faithfulness")
def main(cfg: Config) -> None:
    """Analyze the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.faithfulness import FAITHFULNESS
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    run(FAITHFULNESS, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
