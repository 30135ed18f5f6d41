"""The admin listener: probes, metrics, the status page, the delivery test."""
