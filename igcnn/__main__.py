"""`python -m igcnn`: the command line, also from a checkout that is not installed."""

import sys
from importlib import import_module
from pathlib import Path

import igcnn

if __name__ == "__main__":
    root = Path(__file__).parents[1]
    if (root / "cli" / "main.py").exists():  # a checkout, where igcnn.cli lies beside igcnn
        igcnn.__path__.append(str(root))
    sys.exit(import_module("igcnn.cli.main").main())
