"""Conversations of the chat: kept for whoever holds them, shared when they say so, and paid for by their own key."""
