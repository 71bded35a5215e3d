"""gRPC as the services of this project speak it: batches of ready bytes instead of single messages.

In:        services (a class per gRPC service), listen addresses, targets, TLS files.
Out:       a server on several listeners with health and reflection; channels that read a stream in batches;
           status codes and errors with the texts gRPC users know.
Elsewhere: what is served lives in observer/ and relay/; message classes are in proto/.
"""
