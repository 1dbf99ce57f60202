"""Checks of a rewrite: certificates of single layers; parity and latency of whole models."""
