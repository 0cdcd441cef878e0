"""A tarball becomes a layer."""
