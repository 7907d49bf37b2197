"""The policy's answers: engines that generate, and the duels drawn from their candidates."""
