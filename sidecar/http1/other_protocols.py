"""Names protocols other than HTTP/1.1 by their first bytes, for the log: usually the port or the scheme is a wrong one."""


def name_protocol(data: bytes) -> str:
    """The protocol that a connection that begins with `data` probably speaks, and the remedy; empty if it is not known."""
    if data[:2] == b"\x16\x03" or data[:2] == b"\x15\x03":
        return "the sender speaks TLS; this port expects plain HTTP"
    if data.startswith(b"PRI * HTTP/2"):
        return "the sender speaks HTTP/2 without TLS; it must use HTTP/1.1"
    if data.startswith((b"PROX", b"\r\n\r\n\0")):
        return "a PROXY protocol header; set proxy_protocol: true and name the proxy in trusted_proxies"
    return ""


def name_response_protocol(data: bytes) -> str:
    """The protocol of a receiver whose response begins with `data`; empty if it is not known."""
    if data[:2] == b"\x15\x03" or data[:2] == b"\x16\x03":
        return "the receiver speaks TLS; use https:// in upstream"
    if len(data) >= 9 and data[3:5] == b"\x04\x00" and data[5:9] == b"\0\0\0\0":  # a SETTINGS frame
        return "the receiver speaks HTTP/2 only; it must accept HTTP/1.1"
    return ""
