from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetCostRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetCostResponse(_message.Message):
    __slots__ = ("processes",)
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    processes: _containers.RepeatedCompositeFieldContainer[ProcessCost]
    def __init__(self, processes: _Optional[_Iterable[_Union[ProcessCost, _Mapping]]] = ...) -> None: ...

class ProcessCost(_message.Message):
    __slots__ = ("node_name", "role", "cpu_ns", "uptime_ns", "memory_bytes", "programs", "kernel_problem", "problem")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CPU_NS_FIELD_NUMBER: _ClassVar[int]
    UPTIME_NS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROGRAMS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    role: str
    cpu_ns: int
    uptime_ns: int
    memory_bytes: int
    programs: _containers.RepeatedCompositeFieldContainer[ProgramCost]
    kernel_problem: str
    problem: str
    def __init__(self, node_name: _Optional[str] = ..., role: _Optional[str] = ..., cpu_ns: _Optional[int] = ..., uptime_ns: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., programs: _Optional[_Iterable[_Union[ProgramCost, _Mapping]]] = ..., kernel_problem: _Optional[str] = ..., problem: _Optional[str] = ...) -> None: ...

class ProgramCost(_message.Message):
    __slots__ = ("name", "runs", "run_ns")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    RUN_NS_FIELD_NUMBER: _ClassVar[int]
    name: str
    runs: int
    run_ns: int
    def __init__(self, name: _Optional[str] = ..., runs: _Optional[int] = ..., run_ns: _Optional[int] = ...) -> None: ...
