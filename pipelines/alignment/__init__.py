"""The alignment pipeline: rounds of online preference learning."""
