"""Trainer ``torchtitan``: torchtitan 0.3."""
