"""Generates the Grafana dashboards in helm/dashboards/ (`make docs`)."""
