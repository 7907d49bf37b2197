"""What people take out of an experiment: its status and reports, its policy and its preferences; and simulations."""
