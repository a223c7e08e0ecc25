"""Storage: the seam to a database, and the databases behind it. Nothing here knows what the bytes mean."""
