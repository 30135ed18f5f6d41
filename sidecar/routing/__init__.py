"""Which route takes a request, and may this sender use it? Path, method, address, rate."""
