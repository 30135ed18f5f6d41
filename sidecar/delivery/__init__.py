"""The way of one delivery, from its head to its record."""
