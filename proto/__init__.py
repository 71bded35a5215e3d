"""The wire: .proto files and the stubs generated from them (`make proto`).

In:        nothing of ours; this room and `model` stand alone.
Out:       message classes, service names and numbers that Hubble clients know.
Elsewhere: model/encode.py writes flow messages from rows without building them one by one.
"""
