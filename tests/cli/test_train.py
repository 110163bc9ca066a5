import hashlib
import json
import signal
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

from igcnn import load_checkpoint
from igcnn.training import RunDirectory

from .conftest import TINY
