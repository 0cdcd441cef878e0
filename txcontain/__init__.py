"""A container manager in Twisted that a person can read in an afternoon."""
