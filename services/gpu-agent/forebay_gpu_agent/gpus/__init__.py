"""What NVML says of a GPU, one module for each kind of it. `nvml` opens the driver and calls them."""
