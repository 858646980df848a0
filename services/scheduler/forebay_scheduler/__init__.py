"""The scheduler: whose request goes next, and to which backend."""
