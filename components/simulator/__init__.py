"""Strategies against each other on bandits whose reward is known, with no language model."""
