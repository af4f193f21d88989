"""What changed in a picture: likeness of content in an independent embedder, and of low-level look without any."""

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
PIXELS = 64  # a side at which pictures are compared: resolution is no style
BINS = 8  # a color channel


def mean_cosine(
    pictures: Float[Tensor, "pictures dim"], others: Float[Tensor, "others dim"]
) -> Float[Tensor, " pictures"]:
    """Mean cosine of each picture with all of the others; both hold unit vectors."""
    return pictures @ others.mean(0)


def color_distance(a: Image.Image, b: Image.Image) -> float:
    """Jensen-Shannon distance (base 2, so in [0, 1]) between joint RGB histograms of 8 × 8 × 8 bins."""
    return float(jensenshannon(_histogram(a), _histogram(b), base=2))


def edge_distance(a: Image.Image, b: Image.Image) -> float:
    """1-Wasserstein distance between the distributions of Sobel gradient magnitudes of the gray pictures.

    How many edges there are, and how strong, wherever they lie; gray values are in [0, 1], and so is the gradient of a
    step across their whole range.
    """
    return float(wasserstein_distance(_gradients(a), _gradients(b)))


def _histogram(picture: Image.Image) -> Float[Array, " bins"]:
    values = np.asarray(_same_size(picture).convert("RGB")).reshape(-1, 3)
    counts, _ = np.histogramdd(values, bins=BINS, range=[(0, 256)] * 3)
    return counts.ravel() / counts.sum()


def _gradients(picture: Image.Image) -> Float[Array, " pixels"]:
    gray = np.asarray(_same_size(picture).convert("L"), dtype=np.float64) / 255
    return np.hypot(sobel(gray, axis=0), sobel(gray, axis=1)).ravel() / 4  # Sobel's weights add up to 4


def _same_size(picture: Image.Image) -> Image.Image:
    return picture.resize((PIXELS, PIXELS), Image.Resampling.LANCZOS)
