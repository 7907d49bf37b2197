"""Where bytes live: one small interface, and no word of the domain in it."""
