"""The layers of the target matrix, and the runs of toolchains on them."""
