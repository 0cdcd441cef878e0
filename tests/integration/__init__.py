"""Tests of a real manager with real containers. They need root."""
