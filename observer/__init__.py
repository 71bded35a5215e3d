"""The observer: sees one node's flows and serves them.

In:        raw kernel events (perf.py), proxy records (accesslog.py), recordings (recording.py), the node's knowledge
           (state.py).
Out:       gRPC for any number of clients: Hubble's observer and peer services and our columnar one (service.py).
Elsewhere: model/ decodes, filters and encodes; rpc/ moves bytes; relay/ joins several observers.

Who owns what: the reader thread (pipeline.py) owns the event source, its only exit is a bounded queue. Everything
behind the queue - decoder, ring, streams - lives on one asyncio loop. The recorder's thread owns its file.
"""
