"""Tests of txcontain/services/."""
