"""Trainer ``modelzoo``: Cerebras ModelZoo 2.10 parameter files."""
