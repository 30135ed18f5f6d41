"""Has this delivery been forwarded before? The store's contract, a store in memory and one in Redis, and a delivery's turn."""
