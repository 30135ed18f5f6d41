"""`sidecar inject`: adds the sidecar to Kubernetes manifests.

options        the options of the command
manifest       edits YAML in place
workload       finds the receiver, its port and its Services
configuration  adapts the configuration to them
objects        what is added
paths          which paths of Ingresses and HTTPRoutes have no route
injection      adds it, and removes it again
"""
