"""The sub-pixel family in every spelling people export, as committed graphs.

`corpus` reads them and needs no torch; the modules they were exported from are in
`zero_insertion`, `nearest_resize`, `pixel_shuffle` and `negatives`, what no exporter of today
writes is in `handmade`. ``python -m scripts.make_spellings`` exports everything anew.
"""
