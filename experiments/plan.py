"""Print what reproducing the paper would compute, download and reuse, how long it takes, and what will fail."""

from mmmono.pipeline.entrypoint import Config, entrypoint


@entrypoint("plan")
def main(cfg: Config) -> None:
    """Print the plan; compute nothing."""
    from mmmono.commands.plan.keys import needed_keys

    for key in needed_keys(cfg):  # before PyTorch is loaded
        if not key.there:
            print(f"missing: {key}", flush=True)
    # Imported here, so that --help and errors in settings appear before PyTorch is loaded.
    from mmmono.commands.plan.command import print_plan

    print_plan(cfg)


if __name__ == "__main__":
    main()
