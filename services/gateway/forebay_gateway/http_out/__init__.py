"""How engines are asked: HTTP/1.1 over connections that are kept for the next request, and end at once when nobody wants
their answer. What is asked and what an answer means is `upstream`'s and others' part."""
