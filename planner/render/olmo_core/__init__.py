"""Trainer ``olmo-core``: OLMo-core 3."""
