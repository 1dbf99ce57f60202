"""The report as one HTML file: rendered from a JSON document, with pictures as inline SVG."""
