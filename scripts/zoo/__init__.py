"""Small networks with upsampling layers, as people export them: the makings of ``models/``.

The networks take their widths as constructor arguments, so that the same classes serve the
committed samples (well under 1 MB) and benchmarks at real sizes.
"""
