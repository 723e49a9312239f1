"""Engines that `unetseg bench` compares, each in its own process, under the interpreter that has its package."""
