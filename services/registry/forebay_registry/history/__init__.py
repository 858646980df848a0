"""How nodes, GPUs, backends and models were: minutes and hours, and the energy that they took."""
