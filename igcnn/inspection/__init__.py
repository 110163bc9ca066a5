"""What a network is made of, what it costs, and whether its gradients are right."""

from .composed import Composition, compose, composed_kernel, unit_parameters, widest
from .doctor import Finding, examine
from .gradients import LayerGradients, check_gradients
from .summary import LayerSummary, Summary, summarize
from .trace import Trace, TracedRecord, trace

__all__ = [
    "Composition",
    "Finding",
    "LayerGradients",
    "LayerSummary",
    "Summary",
    "Trace",
    "TracedRecord",
    "check_gradients",
    "compose",
    "composed_kernel",
    "examine",
    "summarize",
    "trace",
    "unit_parameters",
    "widest",
]
