"""A bridge, ports and names."""
