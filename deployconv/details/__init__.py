"""What a report draws besides results: changed nodes, spread of differences, time per layer."""
