"""From a matched layer to new nodes: one module a kind of rewrite."""
