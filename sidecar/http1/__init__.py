"""HTTP/1.1 in and out, as bytes and values. Knows no signature, route or configuration."""
