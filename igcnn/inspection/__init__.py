"""What a network is made of, what it costs, and whether its gradients are right."""

from .doctor import Finding, examine
from .gradients import LayerGradients, check_gradients
from .summary import LayerSummary, Summary, summarize
from .trace import Trace, TracedRecord, trace

__all__ = [
    "Finding",
    "LayerGradients",
    "LayerSummary",
    "Summary",
    "Trace",
    "TracedRecord",
    "check_gradients",
    "examine",
    "summarize",
    "trace",
]
