"""Set features of prompts, and look at what a generator draws from them."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("steered_images")
def main(cfg: Config) -> None:
    """Analyze the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.steered_images import STEERED_IMAGES
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    run(STEERED_IMAGES, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
