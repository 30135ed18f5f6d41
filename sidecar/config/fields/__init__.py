"""The kinds of value that a configuration holds.

Each kind is a `ValueType`. Its grammar is written once: `read` checks a value with it, and `json_schema` publishes it.
"""
