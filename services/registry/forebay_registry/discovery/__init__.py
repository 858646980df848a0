"""Engines that nobody declared: found by agents on their hosts, or named by Kubernetes; and what becomes of them."""
