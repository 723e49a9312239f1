"""Evaluation: metrics, cases, and the choices based on them."""
