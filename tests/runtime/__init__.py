"""Tests of txcontain/runtime/."""
