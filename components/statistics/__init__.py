"""Intervals, bootstraps and tests: how far a measured number can be trusted. Pure."""
