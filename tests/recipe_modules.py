"""Recipes' train.py files as modules."""

import functools
import importlib.util
import sys
from pathlib import Path
from unittest.mock import patch

RECIPES = Path(__file__).parents[1] / "recipes"


@functools.cache
def load_recipe(name):
    """Return the train.py of a recipe as a module."""
    folder = RECIPES / name
    with patch.object(sys, "path", [str(folder), *sys.path]):  # the modules beside it
        spec = importlib.util.spec_from_file_location(
            f"{name}_train", folder / "train.py"
        )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module
