"""`sidecar inject`: Kubernetes manifests in, the same manifests with the sidecar in place out.

`options` is what may be asked for; `manifest` edits YAML where it stands; `workload` finds the receiver, its port and its
Services; `configuration` fits the configuration to them; `objects` is what is put in; `injection` does it, and undoes it.
"""
