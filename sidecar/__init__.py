"""Webhook Sidecar: a reverse proxy that forwards only verified webhook deliveries."""

__version__ = "0.1.0"
