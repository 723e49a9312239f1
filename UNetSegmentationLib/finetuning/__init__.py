"""Fine-tuning of a model on further cases, and the gate that the result must pass."""
