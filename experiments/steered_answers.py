"""Set features of visual tokens, and look at what a vision-language model says of the images."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("steered_answers")
def main(cfg: Config) -> None:
    """Analyze the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.steered_answers import STEERED_ANSWERS
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    run(STEERED_ANSWERS, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
