"""The Grafana dashboards of helm/dashboards/, written by `make docs`."""
