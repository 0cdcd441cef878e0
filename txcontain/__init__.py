"""A container manager in Twisted that a person can read in an afternoon."""

__version__ = "0.2.0"
