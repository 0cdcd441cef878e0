"""Tests of txcontain/logs/."""
