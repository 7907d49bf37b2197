"""Which two candidates should duel."""
