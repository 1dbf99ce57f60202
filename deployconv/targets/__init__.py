"""Where a model will run: what each target takes and misreads, and what to do about a layer."""
