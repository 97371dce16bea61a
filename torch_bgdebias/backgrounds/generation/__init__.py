"""Backgrounds made by text-to-image models or by a function, and the record of how each was made."""
