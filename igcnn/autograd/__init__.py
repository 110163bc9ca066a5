"""Reverse-mode differentiation on a tape: Tensor, Function, Tape, hooks and gradcheck."""

from .function import Function, is_grad_enabled, no_grad
from .gradcheck import GradcheckReport, error_curve, gradcheck
from .hooks import Hook, NaNHook, RecordHook, TimerHook
from .tape import Record, Tape
from .tensor import Tensor

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
