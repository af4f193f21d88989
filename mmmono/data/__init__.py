"""Image-text pairs and their sources."""

from mmmono.data.captions import CaptionChoice
from mmmono.data.coco import CocoPairs
from mmmono.data.openmoji import OpenMojiPairs
from mmmono.data.pairs import ImageTextPair, PairSource, SkippedPair, in_train_split
from mmmono.data.webdataset import WebDatasetPairs

__all__ = [
    "CaptionChoice",
    "CocoPairs",
    "ImageTextPair",
    "OpenMojiPairs",
    "PairSource",
    "SkippedPair",
    "WebDatasetPairs",
    "in_train_split",
]
