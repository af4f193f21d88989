"""Test for every feature whether the image and the text of a pair activate it together."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("sharedness")
def main(cfg: Config) -> None:
    """Analyze the selected feature sets."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.sharedness import SHAREDNESS
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    run(SHAREDNESS, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
