"""Tests of txcontain/swarm/."""
