"""Tests of txcontain/exports/."""
