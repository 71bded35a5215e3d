"""What the loader says when something is missing, and that it leaves alone what is there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import numpy as np
import pytest

from bpf import maps
from bpf.bpffs import ensure_bpffs, is_bpffs
from bpf.datapath import Aggregation, Datapath, Endpoint, IpcacheEntry
from bpf.handles import Map, Program
from bpf.libbpf import BpfError
from bpf.loader import load_object
from observer.cost import PinnedPrograms
from tests.support.testnet import SMALL_MAPS

pytestmark = pytest.mark.kernel

EMIT = "emit.bpf.o"
VERIFIER_LIMIT = 1_000_000
"""Instructions, over all ways through a program."""


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "bpffs"
    ensure_bpffs(path)
    yield path
    subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def datapath(bpffs: Path, objects: Path) -> Iterator[Datapath]:
    with Datapath("node", bpffs=bpffs, sizes=SMALL_MAPS, objects=objects) as loaded:
        loaded.ensure_loaded()
        yield loaded


def test_bpffs_is_mounted_once(bpffs: Path) -> None:
    assert is_bpffs(bpffs)
    ensure_bpffs(bpffs)
    assert not is_bpffs(bpffs.parent)


def test_objects_that_are_not_built_name_the_command(bpffs: Path, tmp_path: Path) -> None:
    with Datapath("node", bpffs=bpffs, objects=tmp_path) as datapath:
        with pytest.raises(BpfError, match="is missing: run `make -C bpf`"):
            datapath.ensure_loaded()
        with pytest.raises(BpfError, match="not loaded"):
            datapath.endpoints()


def test_object_that_is_no_object_is_one_line(bpffs: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.bpf.o"
    broken.write_bytes(b"\x7fELF nonsense")
    with pytest.raises(BpfError) as raised:
        load_object(broken, bpffs / "maps")
    assert str(raised.value).startswith("open broken.bpf.o: ")
    assert "\n" not in str(raised.value)


def test_program_that_the_verifier_refuses_says_why(bpffs: Path, tmp_path: Path, objects: Path) -> None:
    source = tmp_path / "bad.bpf.c"
    source.write_text(
        '#include "defs.h"\n'
        'SEC("tc") int bad(struct __sk_buff *skb) { return *(int *)(long)skb->data; }\n'
        'char LICENSE[] SEC("license") = "Dual BSD/GPL";\n'
    )
    include = Path(maps.__file__).parent / "include"
    arch = f"/usr/include/{os.uname().machine}-linux-gnu"
    command = ["clang", "-O2", "-g", "-target", "bpf", f"-I{include}", "-idirafter", arch, "-c", str(source)]
    subprocess.run([*command, "-o", str(tmp_path / "bad.bpf.o")], check=True)
    with pytest.raises(BpfError, match=r"verifier: .*invalid access to packet"):
        load_object(tmp_path / "bad.bpf.o", bpffs / "maps")


def test_pinned_maps_of_another_layout_name_the_way_out(bpffs: Path, objects: Path) -> None:
    load_object(objects / EMIT, bpffs / "maps").close()
    (bpffs / "maps" / maps.CONFIG).unlink()
    os.link(bpffs / "maps" / maps.METRICS, bpffs / "maps" / maps.CONFIG)
    with pytest.raises(BpfError, match=r"another layout.*stop the agent, unload"):
        load_object(objects / EMIT, bpffs / "maps")


def test_pinned_map_keeps_its_size_whatever_is_asked_later(bpffs: Path, objects: Path) -> None:
    load_object(objects / EMIT, bpffs / "maps", sizes={maps.CT4_TCP: 1000}).close()
    again = load_object(objects / EMIT, bpffs / "maps", sizes={maps.CT4_TCP: 2000})
    assert again.maps[maps.CT4_TCP].max_entries == 1000
    again.close()


def test_without_capabilities_the_line_says_which(objects: Path, tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from bpf.bpffs import ensure_bpffs\n"
        "from bpf.libbpf import BpfError\n"
        "from bpf.loader import load_object\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "object, folder = map(Path, sys.argv[1:])\n"
        "for action in (lambda: load_object(object, folder), lambda: ensure_bpffs(folder)):\n"
        "    try: action()\n"
        "    except BpfError as error: print(error)\n"
    )
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    for parent in folder.parents:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    done = subprocess.run(
        [sys.executable, "-c", script, str(objects / EMIT), str(folder)], capture_output=True, text=True, check=False
    )
    load, mount = done.stdout.splitlines()
    assert "needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON" in load, done.stderr
    assert f"run `mount -t bpf bpf {folder}` as root" in mount


def test_programs_stay_far_below_what_a_kernel_is_willing_to_look_at(datapath: Datapath) -> None:
    """One more way through a program may double the verifier's work, and other kernels need more for the same."""
    [programs] = datapath.pin_dir.glob("programs-*")
    counts = {}
    for path in programs.iterdir():
        program = Program.pinned(path)
        lines = dict(line.split(":") for line in Path(f"/proc/self/fdinfo/{program.fd}").read_text().splitlines())
        counts[path.name] = int(lines.get("verified_insns", 0))  # from Linux 5.16 on
        program.close()
    assert len(counts) > 10
    assert {name: count for name, count in counts.items() if count > VERIFIER_LIMIT // 2} == {}


def test_device_that_is_not_there_is_named(datapath: Datapath) -> None:
    with pytest.raises(BpfError, match="device nosuch0 does not exist"):
        datapath.attach_overlay("nosuch0")
    endpoint = Endpoint(
        endpoint_id=1, identity=1, ifname="nosuch0", pod_mac="02:00:00:00:00:01", host_mac="02:00:00:00:00:02"
    )
    with pytest.raises(BpfError, match="endpoint 1: device nosuch0 does not exist"):
        datapath.attach_endpoint(endpoint)


def test_namespace_that_is_not_there_is_named(bpffs: Path, objects: Path) -> None:
    with Datapath("node", netns="nosuchns", bpffs=bpffs, sizes=SMALL_MAPS, objects=objects) as datapath:
        datapath.ensure_loaded()
        with pytest.raises(BpfError, match="network namespace nosuchns: No such file"):
            datapath.attach_overlay("eth0")
        datapath.unload()
        assert not datapath.pin_dir.exists()


def test_ipcache_becomes_exactly_what_it_is_told(datapath: Datapath) -> None:
    pod = IpcacheEntry(identity=1234, tunnel_endpoint=IPv4Address("172.18.0.3"))
    world = IpcacheEntry(identity=2)
    datapath.set_ipcache(IPv4Address("10.244.2.9"), pod)
    datapath.set_ipcache(ip_network("fd00::/64"), pod)
    assert datapath.ipcache() == {ip_network("10.244.2.9/32"): pod, ip_network("fd00::/64"): pod}
    wanted = {ip_network("0.0.0.0/0"): world, ip_network("fd00::/64"): pod}
    datapath.sync_ipcache(wanted)
    assert datapath.ipcache() == wanted
    datapath.delete_ipcache(ip_network("fd00::/64"))
    datapath.delete_ipcache(ip_network("fd00::/64"))
    assert datapath.ipcache() == {ip_network("0.0.0.0/0"): world}


def test_settings_survive_the_one_who_made_them(datapath: Datapath, bpffs: Path, objects: Path) -> None:
    datapath.configure(aggregation=Aggregation.NONE, host_endpoint_id=77)
    with Datapath("node", bpffs=bpffs, objects=objects) as again:
        again.ensure_loaded()
        again.configure(monitor_interval_s=9)
        table = Map.pinned(again.pin_dir / maps.CONFIG)
        config = np.frombuffer(table.lookup(bytes(4)) or b"", maps.NODE_CONFIG)[0]
        table.close()
    assert (config["aggregation"], config["monitor_interval_s"], config["host_endpoint_id"]) == (0, 9, 77)
    assert (config["monitor_flags"], config["tunnel_port_be"]) == (255, 8472)


def test_large_maps_are_read_and_emptied_in_batches(datapath: Datapath) -> None:
    table = Map.pinned(datapath.pin_dir / maps.CT4_TCP)
    keys = np.zeros(3000, maps.CT4_KEY)
    keys["sport"] = np.arange(3000)
    entries = np.zeros(3000, maps.CT_ENTRY)
    entries["lifetime_s"][1::2] = 2**32 - 1
    for key, entry in zip(keys, entries, strict=True):
        table.update(key.tobytes(), entry.tobytes())
    held = len(table.dump()[0])
    assert held > 2000, "an LRU map may forget some"
    removed = datapath.collect_garbage()
    left = table.dump()[0].view(maps.CT4_KEY)[:, 0]["sport"]
    assert removed + len(left) == held
    assert (left % 2 == 1).all()
    table.close()


def test_unloading_leaves_nothing(datapath: Datapath) -> None:
    datapath.unload()
    assert not datapath.pin_dir.exists()
    datapath.ensure_loaded()
    assert datapath.pin_dir.exists()


async def test_run_times_are_measured_while_somebody_asks(datapath: Datapath) -> None:
    programs = PinnedPrograms(datapath.pin_dir)
    assert "from_netdev" not in {one.name for one in programs.cost()}
    (path,) = datapath.pin_dir.glob("programs-*/from_netdev")
    program = Program.pinned(path)
    program.test_run(bytes(64), repeat=1000)
    (cost,) = (one for one in programs.cost() if one.name == "from_netdev")
    assert cost.runs == 1000
    assert 0 < cost.run_ns < 10**9
    programs.close()
    program.close()
