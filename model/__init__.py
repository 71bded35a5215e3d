"""The vocabulary: rows, tables, event layouts, filters, wire encoding, text. Pure: no I/O, no clock, no threads.

In:        bytes of kernel events, messages, filters.
Out:       rows (numpy) that point into interned tables, and the forms they are shown in.
Elsewhere: observer/ reads the kernel and keeps rows; relay/ merges them; cli/ and ui/ show them.
"""
