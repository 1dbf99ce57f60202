"""What the benchmarks share: models to measure, timing in turns, peak memory."""
