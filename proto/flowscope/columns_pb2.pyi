import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from proto.observer import observer_pb2 as _observer_pb2
from proto.flow import flow_pb2 as _flow_pb2
from proto.relay import relay_pb2 as _relay_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ColumnsResponse(_message.Message):
    __slots__ = ("batch", "node_status", "node_name", "time")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    NODE_STATUS_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    batch: bytes
    node_status: _relay_pb2.NodeStatusEvent
    node_name: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, batch: _Optional[bytes] = ..., node_status: _Optional[_Union[_relay_pb2.NodeStatusEvent, _Mapping]] = ..., node_name: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
