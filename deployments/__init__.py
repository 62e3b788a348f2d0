"""Work pools and the bootstrap of a server."""
