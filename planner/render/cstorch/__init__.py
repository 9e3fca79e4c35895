"""Trainer ``cstorch``: a script on cerebras_pytorch, for CS-3 without ModelZoo."""
