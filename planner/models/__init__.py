"""Architecture: shapes, parameter counts, FLOPs, memory, and scaling of hyperparameters."""
