"""bytes → tables."""
