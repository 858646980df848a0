#!/usr/bin/python3 -IS
"""As much of wget as asks whether a page answers."""

import sys
import urllib.request

urllib.request.urlopen(sys.argv[-1], timeout=4)
