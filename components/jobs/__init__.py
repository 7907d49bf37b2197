"""How training is started and watched."""
