"""The private network: a bridge, published ports, and names."""
