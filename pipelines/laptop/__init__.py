"""Align on this machine: the local run, what it prints, where its data is, and the checks before it."""
