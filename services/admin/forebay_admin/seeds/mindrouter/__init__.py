"""MindRouter's: `/api/admin`, `/status` and `/api/cluster`."""
