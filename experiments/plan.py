"""Say what reproducing the paper would compute, what is there already, and how much room it takes."""

from omegaconf import DictConfig

from mmmono.pipeline.entrypoint import entrypoint


@entrypoint("plan")
def main(cfg: DictConfig) -> None:
    """Print the plan; compute nothing."""
    # Imported here, so that --help and a mistyped setting answer before PyTorch is loaded.
    from mmmono.pipeline.analyses.plan import print_plan

    print_plan(cfg)


if __name__ == "__main__":
    main()
