"""From a Hydra configuration to artifacts. No other package of mmmono uses Hydra."""
