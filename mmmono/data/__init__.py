"""Image-text pairs and their sources."""

from mmmono.data.captions import CaptionChoice
from mmmono.data.coco import CocoPairs
from mmmono.data.coco_files import CocoSplit
from mmmono.data.drawings import DrawingPairs
from mmmono.data.hub_dataset import HubDataset
from mmmono.data.huggingface import HuggingFacePairs
from mmmono.data.icons import IconPairs
from mmmono.data.listed_pairs import ListedPairs
from mmmono.data.listings import Listing, list_folder, list_table
from mmmono.data.opening import ShardOpener
from mmmono.data.openmoji import OpenMojiPairs
from mmmono.data.pairs import ImageTextPair, PairSource, SkippedPair, SplitShares
from mmmono.data.remote_settings import RemoteSettings
from mmmono.data.sample_pairs import SampleReading
from mmmono.data.tables import TableReading
from mmmono.data.webdataset import WebDatasetPairs

__all__ = [
    "CaptionChoice",
    "CocoPairs",
    "CocoSplit",
    "DrawingPairs",
    "HubDataset",
    "HuggingFacePairs",
    "IconPairs",
    "ImageTextPair",
    "ListedPairs",
    "Listing",
    "OpenMojiPairs",
    "PairSource",
    "RemoteSettings",
    "SampleReading",
    "ShardOpener",
    "SkippedPair",
    "SplitShares",
    "TableReading",
    "WebDatasetPairs",
    "list_folder",
    "list_table",
]
