"""Fine-tuning of a model on further cases, and the acceptance gate."""
