"""Whether a delivery is genuine. In: a scheme, a head, a body, secrets. Out: `Verified` or a reason. No I/O, no clock."""
