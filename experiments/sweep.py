"""Compare all dictionaries that were trained on the same features: reconstruction, sparsity, monosemanticity."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("sweep")
def main(cfg: Config) -> None:
    """Tabulate and plot the dictionaries on disk."""
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.analyses.sweep import SWEEP
    from mmmono.pipeline.analysis import run
    from mmmono.pipeline.workspace import Workspace

    run(SWEEP, Workspace(cfg, makes="results"))


if __name__ == "__main__":
    main()
