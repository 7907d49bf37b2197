"""Whoever says which of two responses wins: one interface, one module an oracle."""
