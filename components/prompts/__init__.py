"""Prompt sets: load, check, put in order."""
