"""Upsampling layers as TensorFlow, Keras, JAX and Paddle export them.

One module per framework lists its networks and exports them. It runs in an environment of its own,
where `scripts.make_spellings` starts it; the framework itself is imported only when a network is
built.
"""
