"""Data sets by name, and the loader that makes batches of them."""

from .dataset import Augmentation, Dataset, Decoding, Draw, Images, Split
from .loader import Loader, evaluation_batches
from .registry import DATASETS, load_dataset, register_dataset
from .splitting import hold_out

__all__ = [
    "DATASETS",
    "Augmentation",
    "Dataset",
    "Decoding",
    "Draw",
    "Images",
    "Loader",
    "Split",
    "evaluation_batches",
    "hold_out",
    "load_dataset",
    "register_dataset",
]
