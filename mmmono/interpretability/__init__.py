"""What features mean: their top samples, and how monosemantic they are (Sections 2.3 and 3.2)."""

from mmmono.interpretability.monosemanticity import embsim, winrate
from mmmono.interpretability.ms import monosemanticity_score
from mmmono.interpretability.top_samples import TopSamples, TopStream, top_samples

__all__ = ["TopSamples", "TopStream", "embsim", "monosemanticity_score", "top_samples", "winrate"]
