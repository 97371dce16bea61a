"""The version, in a file that imports nothing, so that any room may write it into what it saves."""

__version__ = "0.2.0"
