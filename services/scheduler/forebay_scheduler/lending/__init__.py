"""What gateways may hold, or use without asking. Pure: time is an argument, and telling and storing are decisions.

`ceilings` is the most that each process may hold on each backend; `credits` are slots lent ahead within it; `allotments`
are the names of rate and budget lent with them."""
