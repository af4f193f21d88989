"""Set features of texts, and look at which images the texts then find."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("steering")
def main(cfg: Config) -> None:
    """Analyze the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.steering import STEERING
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    run(STEERING, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
