"""Examples on real data that ships in packages."""
