"""The fault of a movie itself."""

from __future__ import annotations


class UnusableMovie(ValueError):
    """A movie that cannot be corrected for what its frames hold: no fault of ours, nor of the other movies."""
