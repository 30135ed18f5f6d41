"""Which route handles a request, and may this client use it? By path, method, address and rate. No I/O, no clock."""
