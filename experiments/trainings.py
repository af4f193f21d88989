"""Say which differences of an analysis hold over trainings with other seeds."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("trainings")
def main(cfg: Config) -> None:
    """Make the analysis with each seed, and conclude."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.trainings import TRAININGS
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    run(TRAININGS, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
