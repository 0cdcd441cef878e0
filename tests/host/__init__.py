"""Tests of txcontain/host/."""
