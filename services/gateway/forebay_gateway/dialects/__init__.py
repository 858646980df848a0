"""The languages that clients speak. Pure: requests in, answers and errors out. How they travel is relay's job.

In the middle stands OpenAI's: its chat, completion and embedding requests, and the chunks of its streams. It is what nearly
every engine takes, so for a client that speaks it nothing is translated; each other dialect translates to it and from it."""
