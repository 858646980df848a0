"""What users have kept for them, from the gateway's side: responses and conversations."""
