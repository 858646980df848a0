"""Who may send how much: rates, requests at once, and budgets of keys, users and groups. Pure: time is an argument.

`limits` is the book that the core asks; the rest are its parts. Whose turn it is, is fairness; telling refusals and
allotments to gateways is the session's job."""
