#!/bin/sh
# Regenerate the Python stubs beside the .proto files. Run by `make proto`.
# protoc names imports after the .proto paths (`flow.flow_pb2`); ours live below the package `proto`.
set -eu
cd "$(dirname "$0")"
protos=$(find . -name '*.proto' | sed 's|^\./||' | sort)
"${PYTHON:-python3}" -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. $protos
find . -name '*_pb2*.py' -o -name '*_pb2.pyi' | xargs sed -i -E \
    's/^from (flow|observer|peer|relay|flowscope)(\.[a-z0-9_]+)? import/from proto.\1\2 import/'
rm -f flow/flow_pb2_grpc.py relay/relay_pb2_grpc.py
