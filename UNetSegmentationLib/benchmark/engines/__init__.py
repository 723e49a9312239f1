"""Engines that `unetseg bench` compares, each in a process of its own, under the interpreter that has its package."""
