"""The only place that touches the kernel and the disk."""
