"""Tests of txcontain/images/."""
