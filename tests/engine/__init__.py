"""Tests of txcontain/engine/."""
