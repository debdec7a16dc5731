"""Self-contained pages: HTML, charts and pictures of slices."""
