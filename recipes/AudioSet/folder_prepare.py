"""Your own recordings, until recipes/OwnData has its own train.py."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "OwnData"))
from own_data_prepare import prepare_own_data as prepare_folder  # noqa: E402, F401
