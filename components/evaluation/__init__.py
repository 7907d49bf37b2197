"""How good the policy is: held-out matches and their intervals."""
