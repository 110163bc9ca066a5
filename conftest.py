"""Makes igcnn.cli importable when pytest runs on a checkout that is not installed."""

from pathlib import Path

import igcnn

ROOT = Path(__file__).parent

# setup.cfg installs the folder cli/ as igcnn.cli. Where igcnn is this checkout, that mapping
# may not be in force (nothing installed, or a regular install hidden by `python -m pytest`).
if Path(igcnn.__file__).parent == ROOT / "igcnn":
    igcnn.__path__.append(str(ROOT))
