"""Trainer ``hf-granite``: Granite models of Hugging Face Transformers 5."""
