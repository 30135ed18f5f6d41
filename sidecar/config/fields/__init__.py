"""The kinds of value a configuration holds: each reads itself, says what is wrong, and has its JSON Schema."""
