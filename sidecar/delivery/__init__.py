"""The path of one delivery, from its head to its record, in a straight line.

     (1) head      what the listener found wrong with the request, if anything    http1/connection
     (2) client    direct connection + X-Forwarded-For -> the sender's address    routing/client_ip
     (3) route     path -> route; method, allowlist, rate of rejections           routing/routes, access; throttle
     (4) claim     signature and timestamp are present and well-formed            verify/claim
     (5) body      read whole: bounded in size, time and memory                   body
     (6) verify    a secret's MAC over the raw body matches; handshakes           verify/verifier, handshake; responses
     (7) once      on a route with `replay:`, a copy ends here                    replay/once
     (8) forward   to the receiver, byte for byte                                 forward, upstream_head; http1/upstream
     (9) response  streamed back as it comes                                      forward
    (10) record    once, whatever happened                                        recorder; telemetry/

`proxy.py` is this line. `authorize.py` is the same without (8) and (9), for gateways that ask and then forward by themselves.
`delivery.py` is the value that is passed from stage to stage. `decide.py` has the decisions, which `explain.py` asks for too.
A delivery keeps the snapshot of the configuration (`snapshot.py`) that it began with.

Any stage ends the delivery by returning or raising `Rejected` (we respond) or, once a response has begun, by raising
`Aborted` (the connection closes). Each reason, and the response to it, is in `sidecar/outcomes.py`.
"""
