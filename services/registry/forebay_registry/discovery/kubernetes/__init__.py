"""Backends that Kubernetes names: services that carry a label, and the endpoints behind them."""
