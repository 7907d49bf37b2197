"""Preference learning: losses, tokens, and the training program."""
