"""Has this delivery been forwarded before? What a store promises, in memory and in Redis; one delivery's turn."""
