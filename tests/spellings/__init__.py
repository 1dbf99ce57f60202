"""The sub-pixel family in every spelling people export, as committed graphs.

`corpus` reads them and needs no torch; the modules they were exported from are in
`zero_insertion`, `nearest_resize`, `pixel_shuffle` and `negatives`, what no exporter of today
writes is in `handmade`. What TensorFlow, Keras, JAX and Paddle export is listed in `frameworks`.
``python -m scripts.make_spellings`` exports everything anew.
"""
