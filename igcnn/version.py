"""The version, alone in its file: setup.cfg reads it without importing the rest."""

__version__ = "0.1.0"
