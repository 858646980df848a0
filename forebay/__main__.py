"""`python -m forebay`."""

from forebay.launch import main

main()
