"""Proof, not hope: exact certificates of single sites, parity of whole models."""
