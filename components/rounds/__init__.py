"""A round from the outside: begin an experiment, open a round, close it."""
