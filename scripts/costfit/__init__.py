"""Layers that the constants of the cost model are fitted to."""
