"""Flows as text: the lines, tables and JSON that people and scripts read.

In:        rows with their tables, or messages of the observer API.
Out:       text in the forms of `hubble observe`: compact, dict, table, JSON.
Elsewhere: which flows are shown is model/filters; flags, files and terminals are cli/.

This package stays importable without numpy and protobuf: the command line wants to start fast.
"""
