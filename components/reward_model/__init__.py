"""The epistemic reward model: an ensemble that predicts which answers the oracle prefers."""
