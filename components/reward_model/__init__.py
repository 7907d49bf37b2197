"""What the ensemble believes of every answer: the epistemic reward model."""
