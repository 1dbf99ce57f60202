"""Many models in one call: which files, in which processes, what is done, what is left."""
