"""Tests of txcontain/container/."""
