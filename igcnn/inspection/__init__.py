"""What a network is made of and what it costs."""

from .summary import LayerSummary, Summary, summarize

__all__ = ["LayerSummary", "Summary", "summarize"]
