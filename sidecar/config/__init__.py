"""From files to a frozen `Config`, or to every mistake at once."""
