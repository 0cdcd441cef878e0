"""Tests of txcontain/network/."""
