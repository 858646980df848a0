"""What requests and answers say, where policy wants it kept: taken down beside the answer, and sent to admin."""
