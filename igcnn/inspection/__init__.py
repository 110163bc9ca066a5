"""What a network is made of, what it costs, and whether its gradients are right."""

from ..layers.summary import LayerSummary, Summary, summarize
from .composed import (
    Composition,
    Conditions,
    compose,
    composed_kernel,
    conditions,
    describe_conditions,
    unit_parameters,
    widest,
)
from .devices import DeviceDifference, compare_devices, other_devices
from .doctor import Finding, examine
from .gradients import LayerGradients, check_gradients
from .live import Live, make_live
from .report import make_report
from .subject import Subject, with_picture, with_test_image
from .trace import Trace, TracedRecord, trace
from .wiring import Wiring, wire

__all__ = [
    "Composition",
    "Conditions",
    "DeviceDifference",
    "Finding",
    "LayerGradients",
    "LayerSummary",
    "Live",
    "Subject",
    "Summary",
    "Trace",
    "TracedRecord",
    "Wiring",
    "check_gradients",
    "compare_devices",
    "compose",
    "composed_kernel",
    "conditions",
    "describe_conditions",
    "examine",
    "make_live",
    "make_report",
    "other_devices",
    "summarize",
    "trace",
    "unit_parameters",
    "widest",
    "wire",
    "with_picture",
    "with_test_image",
]
