"""Pipelines and the command line: what users start."""
