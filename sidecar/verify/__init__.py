"""Is this delivery genuine? A scheme, a head, a body and secrets in; `Verified` or a reason out. No I/O, no clock."""
