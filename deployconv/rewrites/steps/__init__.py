"""Fusion steps: the layers after an upsampling layer that may run before its shuffle.

One class per kind of layer, with its recogniser, its emission and its stand-in in a trial.
A `chain.Chain` runs them on phases that are channels, a `region.Region` on phases that are pixels.
"""
