"""Image-text pairs and their sources."""

from mmmono.data.captions import CaptionChoice
from mmmono.data.coco import CocoPairs
from mmmono.data.coco_files import CocoSplit
from mmmono.data.drawings import DrawingPairs
from mmmono.data.icons import IconPairs
from mmmono.data.opening import ShardOpener
from mmmono.data.openmoji import OpenMojiPairs
from mmmono.data.pairs import ImageTextPair, PairSource, SkippedPair, SplitShares
from mmmono.data.remote_settings import RemoteSettings
from mmmono.data.sample_pairs import SampleReading
from mmmono.data.webdataset import WebDatasetPairs

__all__ = [
    "CaptionChoice",
    "CocoPairs",
    "CocoSplit",
    "DrawingPairs",
    "IconPairs",
    "ImageTextPair",
    "OpenMojiPairs",
    "PairSource",
    "RemoteSettings",
    "SampleReading",
    "ShardOpener",
    "SkippedPair",
    "SplitShares",
    "WebDatasetPairs",
]
