"""Training: recipe, loop, evaluation, checkpoints, run directory."""

from .callback import Callback
from .checkpoint import Checkpoint, Preprocessing, load_checkpoint, load_newest, save_checkpoint
from .engine import Engine, TapeEngine, make_engine
from .evaluate import evaluate
from .fit import Fit, fit
from .metrics import Evaluation
from .recipe import Recipe, preset_settings
from .run_directory import RunDirectory
from .trainer import Result, Trainer

__all__ = [
    "Callback",
    "Checkpoint",
    "Engine",
    "Evaluation",
    "Fit",
    "Preprocessing",
    "Recipe",
    "Result",
    "RunDirectory",
    "TapeEngine",
    "Trainer",
    "evaluate",
    "fit",
    "load_checkpoint",
    "load_newest",
    "make_engine",
    "preset_settings",
    "save_checkpoint",
]
