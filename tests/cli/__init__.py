"""Tests of txcontain/cli/."""
