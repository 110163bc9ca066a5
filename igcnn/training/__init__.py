"""Training: recipe, loop, evaluation, checkpoints, run directory."""

from .checkpoint import Checkpoint, Preprocessing, load_checkpoint, save_checkpoint
from .evaluate import evaluate
from .metrics import Evaluation
from .recipe import Recipe, preset_settings
from .run_directory import RunDirectory
from .trainer import Result, Trainer

__all__ = [
    "Checkpoint",
    "Evaluation",
    "Preprocessing",
    "Recipe",
    "Result",
    "RunDirectory",
    "Trainer",
    "evaluate",
    "load_checkpoint",
    "preset_settings",
    "save_checkpoint",
]
