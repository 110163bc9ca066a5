"""Reverse-mode differentiation on a tape: Tensor, Function, Tape, hooks and gradcheck."""

from . import arithmetic, reductions, shapes  # noqa: F401  (give Tensor its methods)
from .function import Function, Record, Tensor, is_grad_enabled
from .gradcheck import GradcheckReport, error_curve, gradcheck
from .hooks import Hook, NaNHook, RecordHook, TimerHook
from .no_grad import no_grad
from .tape import Tape

__all__ = [
    "Function",
    "GradcheckReport",
    "Hook",
    "NaNHook",
    "Record",
    "RecordHook",
    "Tape",
    "Tensor",
    "TimerHook",
    "error_curve",
    "gradcheck",
    "is_grad_enabled",
    "no_grad",
]
