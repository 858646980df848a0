"""`forebay audit`: who did what, and whether the log of it still is what was written."""

from __future__ import annotations

import json
import sys
import time
from contextlib import aclosing

import click
from rich.markup import escape

from forebay.errors import ForebayError
from forebay.wire.v1 import audit_pb2 as wire
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table, visible
