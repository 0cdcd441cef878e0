"""Tests of txcontain/api/."""
