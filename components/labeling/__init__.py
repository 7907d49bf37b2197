"""Oracles, and labels drawn from their probabilities."""
