"""Measures of how similar images are: content (cosine in an independent embedder), colors and edges."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from scipy.ndimage import sobel
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance
from torch import Tensor

Array = np.ndarray[Any, Any]
PIXELS = 64  # images are resized to this side before comparison, so that resolution does not count as style
BINS = 8  # histogram bins per color channel


def mean_cosine(images: Float[Tensor, "images dim"], others: Float[Tensor, "others dim"]) -> Float[Tensor, " images"]:
    """Mean cosine of each image with all of `others`; both are unit vectors."""
    return images @ others.mean(0)


def color_distance(a: Image.Image, b: Image.Image) -> float:
    """Jensen-Shannon distance (base 2, in [0, 1]) between the RGB histograms (8 × 8 × 8 bins) of two images."""
    return float(jensenshannon(_histogram(a), _histogram(b), base=2))


def edge_distance(a: Image.Image, b: Image.Image) -> float:
    """1-Wasserstein distance between the distributions of Sobel gradient magnitudes of two gray images.

    It compares the number and strength of edges, not their positions. Gray values are in [0, 1]; a vertical or
    horizontal step from 0 to 1 has gradient 1.
    """
    return float(wasserstein_distance(_gradients(a), _gradients(b)))


def _histogram(image: Image.Image) -> Float[Array, " bins"]:
    values = np.asarray(_same_size(image).convert("RGB")).reshape(-1, 3)
    counts, _ = np.histogramdd(values, bins=BINS, range=[(0, 256)] * 3)
    return counts.ravel() / counts.sum()


def _gradients(image: Image.Image) -> Float[Array, " pixels"]:
    gray = np.asarray(_same_size(image).convert("L"), dtype=np.float64) / 255
    return np.hypot(sobel(gray, axis=0), sobel(gray, axis=1)).ravel() / 4  # the Sobel weights of one sign add up to 4


def _same_size(image: Image.Image) -> Image.Image:
    return image.resize((PIXELS, PIXELS), Image.Resampling.LANCZOS)
