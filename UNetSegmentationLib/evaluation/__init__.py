"""How good results are: metrics, cases, and what is chosen by them."""
