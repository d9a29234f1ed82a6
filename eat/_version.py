"""The version, in its only place: setup.py reads it as well."""

__version__ = "0.2.0.dev0"
