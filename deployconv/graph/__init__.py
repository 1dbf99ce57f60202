"""The model as a file and as a graph: load, view, splice, save. Knows no pattern."""
