"""From events to rows.

In:        batches of monitor events, L7 records, agent notifications; what the node knows (knowledge.py).
Out:       rows (row.py) that point into tables (tables.py), and counts of what could not be decoded.
Elsewhere: reading perf rings, sockets and files is the observer's; turning rows into messages is encode.py.

decoder.py   what others call
columns.py   usual events, by column
event.py     any event, one at a time: the reference for columns.py
resolve.py   names behind addresses and numbers, remembered; cache.py remembers columns
"""

from model.decode.decoder import Decoded, Decoder
from model.decode.errors import DecodeError, ErrorClass
from model.decode.http_parts import Redaction

__all__ = ["DecodeError", "Decoded", "Decoder", "ErrorClass", "Redaction"]
