"""The commands of txcontain: clients of its REST API."""
