"""A reward model served over HTTP, for many experiments to ask."""
