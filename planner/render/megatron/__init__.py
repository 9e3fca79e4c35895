"""Trainer ``megatron``: Megatron-LM with megatron-core 0.19."""
