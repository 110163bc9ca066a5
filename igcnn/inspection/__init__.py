"""What a network is made of, what it costs, and whether its gradients are right."""

from .gradients import LayerGradients, check_gradients
from .summary import LayerSummary, Summary, summarize
from .trace import Trace, TracedRecord, trace

__all__ = [
    "LayerGradients",
    "LayerSummary",
    "Summary",
    "Trace",
    "TracedRecord",
    "check_gradients",
    "summarize",
    "trace",
]
